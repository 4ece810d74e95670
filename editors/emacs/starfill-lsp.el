;;; starfill-lsp.el --- starfill as a server of lsp-mode  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; For those who want lsp-mode's own `lsp-inline-completion' (lsp-mode 10 and
;; newer) instead of `starfill-mode': registers starfill beside the server of
;; each language.
;;
;;   (with-eval-after-load 'lsp-mode (require 'starfill-lsp))

;;; Code:

(require 'starfill-options)

(declare-function lsp-register-client "ext:lsp-mode" (client))
(declare-function lsp-stdio-connection "ext:lsp-mode" (command &optional test-command))
(declare-function make-lsp-client "ext:lsp-mode" (&rest arguments))

(defun starfill-lsp--wanted-p (_file mode)
  "Return non-nil if starfill is wanted in buffers with the major MODE."
  (not (apply #'provided-mode-derived-p mode 'special-mode starfill-disabled-modes)))

(defun starfill-lsp-register ()
  "Have lsp-mode start starfill beside the server of each language."
  (require 'lsp-mode)
  (lsp-register-client
   (make-lsp-client
    :new-connection (lsp-stdio-connection #'starfill-options-command)
    :activation-fn #'starfill-lsp--wanted-p
    :add-on? t
    :multi-root t
    :priority -1
    :server-id 'starfill
    :initialization-options (lambda () (list :starfill (starfill-options-settings))))))

(with-eval-after-load 'lsp-mode
  (starfill-lsp-register))

(provide 'starfill-lsp)
;;; starfill-lsp.el ends here
