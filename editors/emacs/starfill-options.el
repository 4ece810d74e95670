;;; starfill-options.el --- Options of starfill  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; What can be customized, and what follows from it alone.  A value that
;; belongs to one buffer never counts for what reaches a program, an argument
;; or the server's settings: a file or a directory must not choose them.

;;; Code:

(defgroup starfill nil
  "Ghost text from a model on your own machine."
  :group 'completion
  :prefix "starfill-")

(defcustom starfill-program "starfill"
  "Name or path of the starfill program."
  :type 'string
  :risky t)

(defcustom starfill-flags nil
  "Further arguments of `starfill lsp', each a string.
Settings that reach a path, an address or a device go here, such
as (\"--model\" \"~/models/my-model\" \"--device\" \"cpu\")."
  :type '(repeat string)
  :risky t)

(defcustom starfill-settings nil
  "Settings of the server, an alist from names to values.
Values are strings, numbers, t, nil for false, vectors, or alists
such as ((languages . ((markdown . nil)))).  Those that a
repository must not choose are flags instead: see
`starfill-flags'."
  :type '(alist :key-type symbol :value-type sexp)
  :risky t)

(defcustom starfill-idle-delay 0
  "Seconds without a key before a suggestion is asked for.
The server waits by itself where somebody types fast, so that 0
is a good value."
  :type 'number)

(defcustom starfill-disabled-modes nil
  "Major modes in which `global-starfill-mode' stays off, derived ones too."
  :type '(repeat symbol))

(defcustom starfill-quiet-commands
  '(undo undo-only undo-redo undo-tree-undo undo-tree-redo save-buffer revert-buffer
         evil-undo evil-redo)
  "Commands after which nothing is asked for, although they change the text."
  :type '(repeat symbol))

(defcustom starfill-hide-functions '(starfill-popup-p)
  "Functions called without arguments; if one returns non-nil, nothing is shown."
  :type 'hook)

(defface starfill-ghost '((t :inherit shadow))
  "Face of suggestions.")

(defun starfill-options-command ()
  "Return program and arguments that start the server."
  (cons (default-value 'starfill-program) (cons "lsp" (default-value 'starfill-flags))))

(defconst starfill-options--examined '("--engine" "--model" "--token-file" "--device" "--dtype" "--kv-memory")
  "Flags that say what there is to examine.")

(defun starfill-options-examined ()
  "Return those of `starfill-flags' that say what there is to examine."
  (let ((flags (default-value 'starfill-flags))
        found)
    (while flags
      (let ((flag (pop flags)))
        (when (member (car (split-string flag "=")) starfill-options--examined)
          (push flag found)
          ;; `--model X', where `--model=X' is one.
          (when (and flags (member flag starfill-options--examined))
            (push (pop flags) found)))))
    (nreverse found)))

(defun starfill-options--json (value)
  "Return VALUE, as written in `starfill-settings', in the form of jsonrpc.el."
  (cond ((null value) :json-false)
        ((and (consp value) (consp (car value)))
         (let ((object (make-hash-table :test #'equal)))
           (pcase-dolist (`(,name . ,each) value object)
             (puthash (format "%s" name) (starfill-options--json each) object))))
        ((listp value) (vconcat (mapcar #'starfill-options--json value)))
        (t value)))

(defun starfill-options-settings ()
  "Return the server's settings as a hash table."
  (let ((settings (default-value 'starfill-settings)))
    (if settings (starfill-options--json settings) (make-hash-table :test #'equal))))

(defvar company-candidates)
(defvar corfu--candidates)

(defun starfill-popup-p ()
  "Return non-nil while a completion menu is open."
  (or (bound-and-true-p company-candidates)
      (and (bound-and-true-p corfu--candidates) (bound-and-true-p completion-in-region-mode))))

(provide 'starfill-options)
;;; starfill-options.el ends here
