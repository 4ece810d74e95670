;;; starfill-ghost.el --- How a suggestion is drawn  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; Ghost text: an overlay without width at point.  Knows no server.

;;; Code:

(require 'starfill-options)

(defvar starfill-ghost--overlay nil
  "Where the suggestion is drawn; there is at most one in an Emacs.")

(defun starfill-ghost-draw (text)
  "Draw TEXT after point, in place of what was drawn before."
  (starfill-ghost-erase)
  (let ((overlay (make-overlay (point) (point)))
        (shown (propertize text 'face 'starfill-ghost)))
    ;; The cursor stands before the text, not behind it.
    (put-text-property 0 1 'cursor t shown)
    (overlay-put overlay 'starfill t)
    (overlay-put overlay 'priority 1000)
    ;; Another window on the same buffer shows the buffer as it is.
    (overlay-put overlay 'window (selected-window))
    (overlay-put overlay 'after-string shown)
    (setq starfill-ghost--overlay overlay)))

(defun starfill-ghost-erase ()
  "Erase what is drawn."
  (when starfill-ghost--overlay
    (delete-overlay starfill-ghost--overlay)
    (setq starfill-ghost--overlay nil)))

(defun starfill-ghost-text ()
  "Return what is drawn, or nil."
  (when (and starfill-ghost--overlay (overlay-buffer starfill-ghost--overlay))
    (substring-no-properties (overlay-get starfill-ghost--overlay 'after-string))))

(provide 'starfill-ghost)
;;; starfill-ghost.el ends here
