;;; starfill.el --- Ghost text from a model on your own machine  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;; Version: 0.1.0
;; Package-Requires: ((emacs "28.2"))
;; Keywords: convenience, languages, tools

;;; Commentary:

;; Suggestions of the starfill language server, as you type, beside whatever
;; language client you use.
;;
;;   (global-starfill-mode)
;;
;; One suggestion at a time: point's.  A key that agrees with it leaves the
;; rest standing, without a word to the server; any other key asks anew.
;; What is drawn always fits the text it is drawn in.

;;; Code:

(require 'cl-lib)
(require 'subr-x)
(require 'starfill-options)
(require 'starfill-suggestion)
(require 'starfill-ghost)
(require 'starfill-server)

(defvar starfill-mode)

(defvar starfill--current nil "The suggestion, shown or hidden, if there is one.")
(defvar starfill--cancel nil "Function that ends the request under way, if there is one.")
(defvar starfill--asking nil "The buffer that the request under way is for.")
(defvar starfill--timer nil "Timer of a request to come.")
(defvar starfill--seen nil "Buffer, text, point and whether all is hidden, as last looked at.")
(defvar starfill--unanswered nil "Where something was asked that could not be answered yet: as `starfill--seen'.")
(defvar starfill--invoked nil "Whether it was the user who asked there.")

(defvar-local starfill--visible nil "Whether there is something to accept in this buffer.")
(defvar-local starfill--pending nil "Whether there is something to put away, shown or asked for.")

(defvar starfill-suggestion-map
  (let ((map (make-sparse-keymap)))
    (define-key map (kbd "TAB") #'starfill-accept)
    (define-key map (kbd "<tab>") #'starfill-accept)
    (define-key map (kbd "M-<right>") #'starfill-accept-word)
    (define-key map (kbd "C-M-<right>") #'starfill-accept-line)
    (define-key map (kbd "M-n") #'starfill-next)
    (define-key map (kbd "M-p") #'starfill-previous)
    map)
  "Keys while a suggestion is shown.")

(defvar starfill--pending-map
  (let ((map (make-sparse-keymap)))
    (define-key map (kbd "C-g") #'starfill-quit)
    map)
  "Keys while a suggestion is shown or asked for.")

(defvar starfill-mode-map
  (let ((map (make-sparse-keymap)))
    (define-key map (kbd "C-c \\") #'starfill-trigger)
    map)
  "Keys of `starfill-mode'.")

(defconst starfill--keymaps
  `((starfill--visible . ,starfill-suggestion-map)
    (starfill--pending . ,starfill--pending-map))
  "Which keys come before those of all modes, and when.")

;;; The life of a suggestion

(defun starfill--hidden-p ()
  "Return non-nil if nothing must be shown now."
  (run-hook-with-args-until-success 'starfill-hide-functions))

(defun starfill--stop-asking ()
  "Ask for nothing any more."
  (when starfill--timer
    (cancel-timer starfill--timer)
    (setq starfill--timer nil))
  (when starfill--cancel
    (let ((cancel starfill--cancel))
      (setq starfill--cancel nil)
      (funcall cancel)))
  (when (buffer-live-p starfill--asking)
    (with-current-buffer starfill--asking
      (setq starfill--pending starfill--visible)))
  (setq starfill--asking nil))

(defun starfill--erase ()
  "Erase what is drawn."
  (starfill-ghost-erase)
  (when-let ((buffer (and starfill--current (starfill-suggestion-buffer starfill--current))))
    (when (buffer-live-p buffer)
      (with-current-buffer buffer
        (setq starfill--visible nil
              starfill--pending (and (eq buffer starfill--asking) t))))))

(defun starfill--drop ()
  "Erase the suggestion and forget it."
  (starfill--erase)
  (when starfill--current
    (starfill-suggestion-drop starfill--current)
    (setq starfill--current nil)))

(defun starfill--put-away ()
  "Drop the suggestion, and whatever is still being asked."
  (starfill--stop-asking)
  (setq starfill--unanswered nil)
  (starfill--drop))

(defun starfill--tell-origin ()
  "Say in the echo area where the suggestion is known to stand verbatim."
  (when-let ((origin (starfill-suggestion-origin starfill--current)))
    (unless (or (minibufferp) (active-minibuffer-window))
      (let ((message-log-max nil))
        (message "starfill: %s" (cdr origin))))))

(defun starfill--redraw ()
  "Draw what fits at point of the suggestion, or erase it; return the rest of it."
  (let ((rest (and starfill--current (starfill-suggestion-rest starfill--current))))
    (if (or (not rest) (string-empty-p rest) (starfill--hidden-p))
        (starfill--erase)
      (starfill-ghost-draw rest)
      (starfill--tell-origin)
      (setq starfill--visible t
            starfill--pending t)
      (let ((id (starfill-suggestion-id starfill--current)))
        (when (and id (starfill-suggestion-final starfill--current)
                   (not (member id (starfill-suggestion-told starfill--current))))
          (push id (starfill-suggestion-told starfill--current))
          (starfill-server-shown (starfill-suggestion-item starfill--current)))))
    rest))

(defun starfill--here ()
  "Return what a change alters: buffer, state of the text, point."
  (list (current-buffer) (buffer-chars-modified-tick) (point)))

(defun starfill--ask (invoked &optional on-final)
  "Ask for a suggestion at point.
What is shown stays until there is something newer.
INVOKED is non-nil if the user asked.  ON-FINAL is called once all
is said."
  (starfill--stop-asking)
  (setq starfill--unanswered (starfill--here)
        starfill--invoked invoked)
  (starfill-server-start)
  (when (starfill-server-sync)
    (let ((asked (starfill-suggestion-here))
          (buffer (current-buffer)))
      (setq starfill--asking buffer
            starfill--pending t
            starfill--cancel
            (starfill-server-request
             invoked
             (lambda (items final)
               (when final
                 (setq starfill--cancel nil
                       starfill--asking nil))
               (if (eq buffer (window-buffer (selected-window)))
                   (with-current-buffer buffer
                     (starfill--answered asked items final)
                     (when (and final on-final)
                       (funcall on-final)))
                 (starfill--put-away))))))))

(defun starfill--answered (asked items final)
  "Show ITEMS, which arrived for the place ASKED; FINAL if that is all."
  (when items
    (setq starfill--unanswered nil))
  (when (or items final)
    (setf (starfill-suggestion-items asked) items
          (starfill-suggestion-final asked) final)
    (unless (eq asked starfill--current)
      (when starfill--current
        (starfill--drop))
      (setq starfill--current asked))
    (starfill--redraw)
    (setq starfill--pending (or starfill--visible (and starfill--asking t)))))

(defun starfill--ask-soon ()
  "Ask for a suggestion at point, after the delay that the user wants."
  (if (<= starfill-idle-delay 0)
      (starfill--ask nil)
    (starfill--stop-asking)
    (let ((here (starfill--here)))
      (setq starfill--timer
            (run-with-timer starfill-idle-delay nil
                            (lambda ()
                              (setq starfill--timer nil)
                              (when (eq (car here) (window-buffer (selected-window)))
                                (with-current-buffer (car here)
                                  (when (equal here (starfill--here))
                                    (starfill--ask nil))))))))))

(defun starfill--typing-p ()
  "Return non-nil if what changed the text was somebody who types."
  (not (or executing-kbd-macro
           buffer-read-only
           (memq this-command starfill-quiet-commands)
           (and (bound-and-true-p evil-local-mode)
                (not (memq (bound-and-true-p evil-state) '(insert replace emacs)))))))

(defun starfill--changed ()
  "Look at the current buffer after a command."
  (let* ((here (append (starfill--here) (list (and (starfill--hidden-p) t))))
         (before starfill--seen))
    (unless (equal here before)
      (setq starfill--seen here)
      (let* ((same (eq (car here) (car before)))
             (edited (and same (/= (nth 1 here) (nth 1 before)) (starfill--typing-p)))
             (moved (not (and same (= (nth 1 here) (nth 1 before)) (= (nth 2 here) (nth 2 before)))))
             (rest (starfill--redraw)))
        (unless same
          (starfill-server-start)
          (starfill-server-sync))
        (unless rest
          (starfill--drop))
        (cond ((not moved))
              ((and rest (not (string-empty-p rest)) (starfill-suggestion-final starfill--current))
               (starfill--stop-asking))
              (edited (starfill--ask-soon))
              (t (starfill--put-away)))))))

(defun starfill--post-command ()
  "Look at where the user is after a command."
  (let ((shown (and starfill--current (starfill-suggestion-buffer starfill--current))))
    (when (or (and shown (not (eq shown (current-buffer))))
              (and starfill--asking (not (eq starfill--asking (current-buffer)))))
      (starfill--put-away)))
  (if starfill-mode
      (starfill--changed)
    (setq starfill--seen nil)))

(defun starfill--catch-up ()
  "Ask again what could not be answered."
  (let ((buffer (window-buffer (selected-window))))
    (with-current-buffer buffer
      (when starfill-mode
        (starfill-server-sync)
        (when (and starfill--unanswered (equal starfill--unanswered (starfill--here))
                   ;; What the user asks for waits for the model by itself.
                   (not (and starfill--invoked starfill--cancel)))
          (starfill--ask starfill--invoked))))))

;;; Commands

(defun starfill--take (kind)
  "Insert the part KIND of the suggestion; return non-nil if there was one."
  (let ((rest (and starfill--current (starfill-suggestion-rest starfill--current))))
    (when (and rest (not (string-empty-p rest)))
      (let* ((part (starfill-suggestion-part rest kind))
             (left (substring rest (length part)))
             (item (starfill-suggestion-item starfill--current))
             (length (starfill-suggestion-accepted-length starfill--current left)))
        (starfill--stop-asking)
        (starfill--erase)
        (undo-boundary)
        (insert part)
        (undo-boundary)
        (if (string-empty-p left)
            (progn
              (starfill--drop)
              (starfill-server-accepted item))
          (starfill-server-partly-accepted item length)
          (starfill--redraw))
        t))))

(defun starfill-accept ()
  "Take the suggestion."
  (interactive "*")
  (unless (starfill--take 'all)
    (user-error "There is no suggestion here")))

(defun starfill-accept-word ()
  "Take the next word of the suggestion; the rest stays."
  (interactive "*")
  (unless (starfill--take 'word)
    (user-error "There is no suggestion here")))

(defun starfill-accept-line ()
  "Take the next line of the suggestion; the rest stays."
  (interactive "*")
  (unless (starfill--take 'line)
    (user-error "There is no suggestion here")))

(defun starfill-dismiss ()
  "Put the suggestion away, and whatever is still being asked."
  (interactive)
  (starfill--put-away)
  (when starfill-mode
    (setq starfill--pending nil
          starfill--seen (append (starfill--here) (list (and (starfill--hidden-p) t))))))

(defun starfill-quit ()
  "Put the suggestion away; if none was shown, quit as well."
  (interactive)
  (let ((visible starfill--visible))
    (starfill-dismiss)
    (unless visible
      (keyboard-quit))))

(defun starfill--turn (step)
  "Show the candidate that is STEP further."
  (let ((count (and starfill--current (length (starfill-suggestion-items starfill--current)))))
    (when (and count (> count 1))
      (setf (starfill-suggestion-index starfill--current)
            (mod (+ (starfill-suggestion-index starfill--current) step) count))
      (starfill--redraw))))

(defun starfill-next (&optional step)
  "Show the next candidate, or the one STEP further.
The server is asked for more of them once."
  (interactive "p")
  (let ((step (or step 1)))
    (if (and starfill--current (starfill-suggestion-asked-for-more starfill--current))
        (starfill--turn step)
      (starfill--ask t (lambda ()
                         (when starfill--current
                           (setf (starfill-suggestion-asked-for-more starfill--current) t)
                           (starfill--turn step)))))))

(defun starfill-previous (&optional step)
  "Show the previous candidate, or the one STEP back."
  (interactive "p")
  (starfill-next (- (or step 1))))

(defun starfill-trigger ()
  "Ask for a suggestion now, whatever the automatic rules say."
  (interactive "*")
  (unless starfill-mode
    (starfill-mode))
  (starfill--ask t))

(defun starfill-restart ()
  "Stop the server and start another one."
  (interactive)
  (starfill--put-away)
  (starfill-server-restart))

;;; The modes

(defun starfill-lighter ()
  "Return what starfill is doing, and why nothing came, for the mode line."
  (let* ((status starfill-server-status)
         (kind (plist-get status :kind))
         (reason (plist-get status :reason))
         (sign (cond ((plist-get status :busy) "…")
                     ((member kind '("Error" "Warning")) "!")
                     ((equal kind "Inactive") "-")
                     (t ""))))
    (propertize (concat " sf" sign
                        (cond ((not starfill--visible) (and reason (concat "[" reason "]")))
                              (starfill--current
                               (when-let ((origin (starfill-suggestion-origin starfill--current)))
                                 (concat "[" (string-replace "%" "%%" (car origin)) "]")))))
                'help-echo (format "starfill: %s" (or (plist-get status :message) "not started")))))

(defun starfill--leave ()
  "Let go of the current buffer: its end is near, or its major mode's."
  (when (or (eq starfill--asking (current-buffer))
            (and starfill--current (eq (starfill-suggestion-buffer starfill--current) (current-buffer))))
    (starfill--put-away))
  (starfill-server-close))

;;;###autoload
(define-minor-mode starfill-mode
  "Suggestions of a model on your own machine, as you type."
  :lighter (:eval (starfill-lighter))
  :keymap starfill-mode-map
  (if starfill-mode
      (progn
        (add-hook 'kill-buffer-hook #'starfill--leave nil t)
        (add-hook 'change-major-mode-hook #'starfill--leave nil t)
        (add-hook 'post-command-hook #'starfill--post-command)
        (add-hook 'minibuffer-setup-hook #'starfill--put-away)
        (add-hook 'starfill-server-ready-hook #'starfill--catch-up)
        (add-to-list 'emulation-mode-map-alists 'starfill--keymaps)
        (when (eq (current-buffer) (window-buffer (selected-window)))
          (starfill--changed)))
    (remove-hook 'kill-buffer-hook #'starfill--leave t)
    (remove-hook 'change-major-mode-hook #'starfill--leave t)
    (starfill--leave)
    (setq starfill--visible nil
          starfill--pending nil)))

(defun starfill--turn-on ()
  "Switch `starfill-mode' on where it is wanted: in files that are edited."
  (when (and buffer-file-name
             (not (buffer-base-buffer))
             (not buffer-read-only)
             (not (apply #'derived-mode-p 'special-mode starfill-disabled-modes)))
    (starfill-mode)))

;;;###autoload
(define-globalized-minor-mode global-starfill-mode starfill-mode starfill--turn-on
  :group 'starfill)

;;;###autoload
(autoload 'starfill-doctor "starfill-doctor" "Look at everything, and say what is wrong." t)
;;;###autoload
(autoload 'starfill-status "starfill-doctor" "Say what starfill is doing, and why nothing came." t)
;;;###autoload
(autoload 'starfill-rewrite "starfill-actions" "Rewrite the lines of the region as told." t)
;;;###autoload
(autoload 'starfill-explain "starfill-actions" "Explain the lines of the region." t)
;;;###autoload
(autoload 'starfill-write-tests "starfill-actions" "Write tests for the lines of the region." t)
;;;###autoload
(autoload 'starfill-log "starfill-doctor" "Show what the server wrote to its log." t)

(provide 'starfill)
;;; starfill.el ends here
