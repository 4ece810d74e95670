;;; starfill-doctor.el --- What is going on, and what is wrong  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; `starfill-status', `starfill-doctor' and `starfill-log'.

;;; Code:

(require 'subr-x)
(require 'starfill-options)
(require 'starfill-server)

(defun starfill-doctor--json (text)
  "Return TEXT parsed as JSON, or nil."
  (ignore-errors
    (json-parse-string text :object-type 'plist :array-type 'list :null-object nil :false-object nil)))

(defun starfill-doctor--insert (ok name detail &optional remedy)
  "Insert a line on NAME: whether it is OK, DETAIL, and a REMEDY if it is not."
  (insert (format "%s %s: %s\n" (if ok "ok   " "WRONG") name detail))
  (when (and (not ok) remedy (not (string-empty-p remedy)))
    (insert (format "      %s\n" remedy))))

(defun starfill-doctor--self ()
  "Insert what Emacs knows by itself; return the program if it is there."
  (let* ((name (car (starfill-options-command)))
         (program (executable-find name)))
    (starfill-doctor--insert (version<= "28.2" emacs-version) "emacs" emacs-version "install Emacs 28.2 or newer")
    (starfill-doctor--insert (fboundp 'json-serialize) "json"
                             (if (fboundp 'json-serialize) "native" "not native")
                             "install an Emacs that was built with jansson")
    (starfill-doctor--insert program "program" (or program (format "%s is not on exec-path" name))
                             "pipx install starfill, or set starfill-program")
    (starfill-doctor--insert t "server"
                             (if (starfill-server-ready-p)
                                 (format "runs, positions in %s" starfill-server--encoding)
                               "not running; it starts with the first file in starfill-mode"))
    (starfill-doctor--insert (not (equal (plist-get starfill-server-status :kind) "Error")) "status"
                             (or (plist-get starfill-server-status :message) "not started")
                             "M-x starfill-log has what the server said")
    program))

(defun starfill-doctor--report (program buffer)
  "Have PROGRAM look at the machine, and append what it found to BUFFER."
  (let ((output (generate-new-buffer " *starfill doctor*")))
    (make-process
     :name "starfill doctor" :noquery t :connection-type 'pipe :buffer output
     ;; What is not JSON is for the log, which is not this buffer.
     :stderr (make-pipe-process :name "starfill doctor log" :noquery t :buffer nil :sentinel #'ignore :filter #'ignore)
     :command (append (list program "doctor" "--json") (starfill-options-examined))
     :sentinel
     (lambda (process _event)
       (unless (process-live-p process)
         (let ((checks (starfill-doctor--json (with-current-buffer output (buffer-string)))))
           (kill-buffer output)
           (when (buffer-live-p buffer)
             (with-current-buffer buffer
               (let ((inhibit-read-only t))
                 (goto-char (point-max))
                 (if (not checks)
                     (starfill-doctor--insert nil "doctor" "`starfill doctor --json' gave no answer"
                                              "run it in a terminal")
                   (dolist (check checks)
                     (starfill-doctor--insert (plist-get check :ok) (plist-get check :name)
                                              (plist-get check :detail) (plist-get check :remedy))))
                 (insert "\nThat is all.\n")
                 (goto-char (point-min)))))))))))

(defun starfill-doctor--view (name)
  "Return an empty buffer called NAME, on display."
  (let ((buffer (get-buffer-create name)))
    (with-current-buffer buffer
      (special-mode)
      (let ((inhibit-read-only t))
        (erase-buffer)))
    (display-buffer buffer)
    buffer))

;;;###autoload
(defun starfill-doctor ()
  "Look at everything, and say what is wrong."
  (interactive)
  (let ((buffer (starfill-doctor--view "*starfill doctor*")))
    (with-current-buffer buffer
      (setq default-directory (expand-file-name "~/"))
      (let ((inhibit-read-only t)
            (program (let ((inhibit-read-only t)) (starfill-doctor--self))))
        (if program
            (starfill-doctor--report program buffer)
          (insert "\nThat is all.\n"))))))

(defun starfill-doctor--insert-plist (plist indentation)
  "Insert PLIST as lines, each after INDENTATION blanks."
  (while plist
    (let ((name (substring (symbol-name (pop plist)) 1))
          (value (pop plist)))
      (unless (memq value '(nil :json-false))
        (insert (make-string indentation ?\s) name ":")
        (if (and (consp value) (keywordp (car value)))
            (progn
              (insert "\n")
              (starfill-doctor--insert-plist value (+ indentation 2)))
          (insert (format " %s\n" (if (eq value t) "yes" value))))))))

;;;###autoload
(defun starfill-status ()
  "Say what starfill is doing, and why nothing came."
  (interactive)
  (if (not (starfill-server-ready-p))
      (message "starfill: %s" (or (plist-get starfill-server-status :message) "not started"))
    (starfill-server-execute
     "starfill.status" []
     (lambda (result)
       (with-current-buffer (starfill-doctor--view "*starfill status*")
         (let ((inhibit-read-only t))
           (starfill-doctor--insert-plist result 0)
           (goto-char (point-min))))))))

;;;###autoload
(defun starfill-log ()
  "Show what the server wrote to its log."
  (interactive)
  (pop-to-buffer (get-buffer-create "*starfill log*")))

(provide 'starfill-doctor)
;;; starfill-doctor.el ends here
