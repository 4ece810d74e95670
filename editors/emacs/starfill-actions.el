;;; starfill-actions.el --- Code rewritten and explained as told -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; `starfill-rewrite', `starfill-explain' and `starfill-write-tests', where the model follows instructions.  The server does not
;; edit buffers here: what it answers takes the lines' place if the buffer is still as it was.

;;; Code:

(require 'starfill-document)
(require 'starfill-server)

(defun starfill-actions--lines ()
  "Return beginning and end of the lines of the region, or of point's line."
  (if (not (use-region-p))
      (cons (line-beginning-position) (line-end-position))
    (let ((beg (region-beginning))
          (end (region-end)))
      (cons (save-excursion (goto-char beg) (line-beginning-position))
            (save-excursion
              (goto-char end)
              (when (and (bolp) (> end beg))
                (backward-char))
              (line-end-position))))))

(defun starfill-actions--ask (command argument beg end on-result)
  "Have the server execute COMMAND with ARGUMENT about BEG to END.
ON-RESULT is called in this buffer with what it returns."
  (unless (and (starfill-server-ready-p) (starfill-document-told-p))
    (user-error "The server does not know this buffer; see `starfill-status'"))
  (starfill-server-sync)
  (let ((buffer (current-buffer))
        (range (list :start (starfill-document-position beg) :end (starfill-document-position end))))
    (message "starfill: asked")
    (starfill-server-execute
     command (vector (append argument (starfill-document-identifier) (list :range range)))
     (lambda (result)
       (when (buffer-live-p buffer)
         (with-current-buffer buffer
           (funcall on-result result)))))))

(defun starfill-actions--complain (result)
  "Say why RESULT has nothing to show."
  (message "starfill: %s" (or (plist-get result :message) "nothing came")))

(defun starfill-actions--replace (command argument beg end)
  "Put what COMMAND with ARGUMENT answers in the place of BEG to END."
  (let ((tick (buffer-chars-modified-tick))
        (beg (copy-marker beg))
        (end (copy-marker end)))
    (starfill-actions--ask
     command argument beg end
     (lambda (result)
       (cond ((not (member (plist-get result :reason) '(nil "not_applied")))
              (starfill-actions--complain result))
             ((/= tick (buffer-chars-modified-tick))
              (message "starfill: the buffer changed meanwhile"))
             (t (atomic-change-group
                  (save-excursion
                    (goto-char beg)
                    (delete-region beg end)
                    (insert (plist-get result :text))))
                (message "starfill: done")))))))

(defun starfill-actions--show (task)
  "Show in a window what the model answers about the region.
TASK is what it is told to do."
  (pcase-let ((`(,beg . ,end) (starfill-actions--lines)))
    (starfill-actions--ask
     "starfill.action" (list :task task) beg end
     (lambda (result)
       (if (equal (plist-get result :text) "")
           (starfill-actions--complain result)
         (with-current-buffer (get-buffer-create "*starfill answer*")
           (let ((inhibit-read-only t))
             (erase-buffer)
             (insert (plist-get result :text)))
           (special-mode)
           (display-buffer (current-buffer))))))))

;;;###autoload
(defun starfill-rewrite (instruction)
  "Rewrite the lines of the region by INSTRUCTION.
Without a region, write something new at point."
  (interactive "sRewrite as told: ")
  (pcase-let ((`(,beg . ,end) (if (use-region-p) (starfill-actions--lines) (cons (point) (point)))))
    (starfill-actions--replace "starfill.rewrite" (list :instruction instruction) beg end)))

;;;###autoload
(defun starfill-explain ()
  "Explain the lines of the region, or point's line."
  (interactive)
  (starfill-actions--show "explain"))

;;;###autoload
(defun starfill-write-tests ()
  "Have the model test the lines of the region, or point's line."
  (interactive)
  (starfill-actions--show "tests"))

(provide 'starfill-actions)
;;; starfill-actions.el ends here
