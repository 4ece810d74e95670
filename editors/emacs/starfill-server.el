;;; starfill-server.el --- The language server  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; One server for all buffers of this Emacs, beside whatever language client
;; there is.  Speaks the protocol; knows nothing of what is drawn.

;;; Code:

(require 'cl-lib)
(require 'subr-x)
(require 'jsonrpc)
(require 'project)
(require 'starfill-options)
(require 'starfill-document)

(defvar starfill-server-status nil
  "What the server said of itself last.
A plist with :kind, :message, :busy and :reason.")
(defvar starfill-server-status-hook nil "Run when `starfill-server-status' changes.")
(defvar starfill-server-ready-hook nil "Run when requests can be answered that could not be before.")

(defvar starfill-server--connection nil "The connection to the running server.")
(defvar starfill-server--process nil "The process of the running server.")
(defvar starfill-server--encoding nil "How the server counts characters, once it has answered `initialize'.")
(defvar starfill-server--listeners (make-hash-table :test #'equal) "Who waits for the partial results of which token.")
(defvar starfill-server--tokens 0 "How many tokens were given out.")
(defvar starfill-server--folders nil "Roots of projects that the server knows.")
(defvar starfill-server--deaths nil "When servers ended by themselves, the latest first.")
(defvar starfill-server--told nil "The complaint that was shown last.")

(defconst starfill-server--log-size 100000 "Characters of the server's log that are kept.")

(defclass starfill-server--peer (jsonrpc-process-connection)
  ((last-id :initform nil :documentation "Id of the request that was sent last."))
  "A connection whose requests can be cancelled: their ids are known.")

(cl-defmethod jsonrpc-connection-send :before ((peer starfill-server--peer) &key id method &allow-other-keys)
  "Note the ID of a request to PEER; replies have no METHOD."
  (when (and id method)
    (oset peer last-id id)))

(defun starfill-server--set-status (kind message &optional busy reason)
  "The server's status is KIND, MESSAGE, BUSY and REASON from now on."
  (let ((status (list :kind kind :message message :busy busy :reason reason)))
    (unless (equal status starfill-server-status)
      (setq starfill-server-status status)
      (run-hooks 'starfill-server-status-hook)
      (force-mode-line-update t))))

;;; The process

(defun starfill-server--log (_process text)
  "Keep TEXT, which the server wrote to its log."
  (with-current-buffer (get-buffer-create "*starfill log*")
    (save-excursion
      (goto-char (point-max))
      (let ((inhibit-read-only t))
        (insert text)
        (when (> (buffer-size) starfill-server--log-size)
          (delete-region (point-min) (- (point-max) (/ starfill-server--log-size 2))))))
    (setq buffer-read-only t)))

(defun starfill-server--make-process (command)
  "Start COMMAND."
  ;; A fresh buffer has none of the paths and variables that a project may have put in place.
  (with-temp-buffer
    (setq default-directory (expand-file-name "~/"))
    (make-process
     :name "starfill"
     :command command
     :connection-type 'pipe
     :coding 'utf-8-emacs-unix
     :noquery t
     :stderr (make-pipe-process :name "starfill log" :noquery t :coding 'utf-8
                                :buffer nil :filter #'starfill-server--log :sentinel #'ignore))))

(defun starfill-server--no-events ()
  "Return the arguments that have jsonrpc.el keep no record of messages.
They hold the user's text."
  (if (cl-find '-events-buffer-config (eieio-class-slots 'jsonrpc-connection) :key #'eieio-slot-descriptor-name)
      '(:events-buffer-config (:size 0))
    '(:events-buffer-scrollback-size 0)))

(defun starfill-server--program ()
  "Return program and arguments of the server.
If the program is not found, say so and return nil."
  (pcase-let ((`(,name . ,arguments) (starfill-options-command)))
    (if-let ((program (with-temp-buffer (executable-find name))))
        (cons program arguments)
      (starfill-server--complain
       (format "%s is not on exec-path; install it (pipx install starfill) or set starfill-program" name))
      nil)))

(defun starfill-server--complain (message)
  "Say MESSAGE, once, and have it for a status."
  (starfill-server--set-status "Error" message)
  (unless (equal message starfill-server--told)
    (setq starfill-server--told message)
    (message "starfill: %s" message)))

(defun starfill-server--may-start-p ()
  "Return non-nil unless servers keep ending.
Then a while must pass, twice as long each time."
  (let ((recent (cl-count-if (lambda (time) (< (- (float-time) time) 600)) starfill-server--deaths)))
    (or (zerop recent)
        (> (- (float-time) (car starfill-server--deaths)) (min 300 (expt 2 (1- recent)))))))

(defun starfill-server-start ()
  "Start the server if there is none and one may be started."
  (unless (and starfill-server--connection (jsonrpc-running-p starfill-server--connection))
    (when (starfill-server--may-start-p)
      (when-let ((command (starfill-server--program)))
        (setq starfill-server--encoding nil
              starfill-server--folders (delq nil (list (starfill-server--folder)))
              starfill-server--connection
              (apply #'make-instance 'starfill-server--peer
                     :name "starfill"
                     :process (lambda ()
                                (setq starfill-server--process (starfill-server--make-process command)))
                     :notification-dispatcher #'starfill-server--heard
                     :request-dispatcher #'starfill-server--asked
                     :on-shutdown #'starfill-server--ended
                     (starfill-server--no-events)))
        (starfill-server--set-status "Normal" "starting" t)
        (starfill-server--initialize starfill-server--connection)))))

(defun starfill-server--folder ()
  "Return the root of the current buffer's project, if it is in one here."
  (when-let* ((here (and buffer-file-name (not (file-remote-p default-directory)) default-directory))
              (project (ignore-errors (project-current nil here))))
    (file-name-as-directory (expand-file-name (project-root project)))))

(defun starfill-server--workspace-folder (folder)
  "Return FOLDER as the protocol has it."
  (let ((buffer-file-name (directory-file-name folder)))
    (list :uri (starfill-document-uri) :name (file-name-nondirectory buffer-file-name))))

(defun starfill-server--initialize (peer)
  "Have PEER introduce itself."
  (let ((settings (starfill-options-settings)))
    (puthash "status" t settings)
    (puthash "answers" t settings)
    (jsonrpc-async-request
     peer 'initialize
     (list :processId (emacs-pid)
           :clientInfo (list :name "Emacs" :version emacs-version)
           :rootUri nil
           :workspaceFolders (vconcat (mapcar #'starfill-server--workspace-folder starfill-server--folders))
           :initializationOptions (list :starfill settings)
           :capabilities
           '(:general (:positionEncodings ["utf-32" "utf-16"])
             :workspace (:configuration t :workspaceFolders t :didChangeConfiguration (:dynamicRegistration :json-false))
             ;; The key alone says that this client draws ghost text and wants no menu entries.
             :textDocument (:inlineCompletion (:dynamicRegistration :json-false)
                            :synchronization (:dynamicRegistration :json-false))))
     :timeout nil
     :success-fn
     (lambda (result)
       (when (eq peer starfill-server--connection)
         (setq starfill-server--encoding (or (plist-get (plist-get result :capabilities) :positionEncoding) "utf-16")
               starfill-server--told nil)
         (jsonrpc-notify peer 'initialized (make-hash-table))
         (starfill-server--set-status "Normal" "ready")
         (run-hooks 'starfill-server-ready-hook)))
     :error-fn
     (lambda (error)
       (when (eq peer starfill-server--connection)
         (starfill-server--complain (format "the server did not start: %s" (plist-get error :message))))))))

(defun starfill-server--ended (peer)
  "Take note that PEER's process is gone."
  (when (eq peer starfill-server--connection)
    (let ((code (process-exit-status starfill-server--process)))
      (push (float-time) starfill-server--deaths)
      (starfill-server--forget)
      (starfill-server--complain
       (format "the server ended with code %s; M-x starfill-log has what it said" code)))))

(defun starfill-server--forget ()
  "Forget the server, which is gone."
  (setq starfill-server--connection nil
        starfill-server--encoding nil)
  (clrhash starfill-server--listeners)
  (dolist (buffer (buffer-list))
    (with-current-buffer buffer
      (starfill-document-close))))

(defun starfill-server-stop ()
  "Stop the server; the engine stays warm."
  (when-let ((peer starfill-server--connection))
    (starfill-server--forget)
    (starfill-server--set-status "Inactive" "stopped")
    (when (jsonrpc-running-p peer)
      (ignore-errors (jsonrpc-request peer 'shutdown nil :timeout 1))
      (ignore-errors (jsonrpc-notify peer 'exit nil))
      (jsonrpc-shutdown peer))))

(defun starfill-server-restart ()
  "Stop the server and start another one, however often servers ended."
  (starfill-server-stop)
  (setq starfill-server--deaths nil)
  (starfill-server-start))

;;; What the server says

(defun starfill-server--heard (peer method params)
  "Take note of the notification METHOD of PEER's with PARAMS."
  (when (eq peer starfill-server--connection)
    (pcase method
      ('$/progress
       (when-let ((listener (gethash (plist-get params :token) starfill-server--listeners)))
         (funcall listener (append (plist-get (plist-get params :value) :items) nil))))
      ('didChangeStatus
       (let ((loading (equal (plist-get starfill-server-status :reason) "loading"))
             (reason (plist-get params :reason)))
         (starfill-server--set-status (plist-get params :kind) (plist-get params :message)
                                      (eq (plist-get params :busy) t) reason)
         (when (and loading (not (equal reason "loading")))
           (run-hooks 'starfill-server-ready-hook))))
      ('window/showMessage (message "%s" (plist-get params :message))))))

(defun starfill-server--asked (_peer method params)
  "Return the answer to the request METHOD with PARAMS."
  (pcase method
    ('workspace/configuration
     (vconcat (mapcar (lambda (item)
                        (and (equal (plist-get item :section) "starfill") (starfill-options-settings)))
                      (plist-get params :items))))
    (_ (jsonrpc-error :code -32601 :message (format "%s is not known here" method)))))

;;; What we say

(defun starfill-server-ready-p ()
  "Return non-nil if requests can be sent."
  (and starfill-server--encoding starfill-server--connection
       (jsonrpc-running-p starfill-server--connection)))

(defun starfill-server--notify (method params)
  "Send the notification METHOD with PARAMS, if there is a server."
  (when (starfill-server-ready-p)
    (jsonrpc-notify starfill-server--connection method params)))

(defun starfill-server-sync ()
  "Tell the server how the current buffer is now.
Return non-nil if it can be asked about it."
  (when (starfill-server-ready-p)
    (when (starfill-document-renamed-p)
      (starfill-server-close))
    (if (starfill-document-told-p)
        (when-let ((changes (starfill-document-changes)))
          (starfill-server--notify 'textDocument/didChange changes))
      (when-let ((folder (starfill-server--folder)))
        (unless (member folder starfill-server--folders)
          (push folder starfill-server--folders)
          (starfill-server--notify
           'workspace/didChangeWorkspaceFolders
           (list :event (list :added (vector (starfill-server--workspace-folder folder)) :removed [])))))
      (starfill-server--notify 'textDocument/didOpen (starfill-document-open starfill-server--encoding)))
    t))

(defun starfill-server-close ()
  "Tell the server that the current buffer is no concern of its any more."
  (when-let ((params (starfill-document-close)))
    (starfill-server--notify 'textDocument/didClose params)))

(defun starfill-server-request (invoked on-items)
  "Ask for completions at point; return a function that cancels.
INVOKED is non-nil if the user asked, not a key that was typed.
ON-ITEMS is called with a list of items and whether it is final:
as the text streams in, each list replacing the one before, and
once at the end."
  (let* ((peer starfill-server--connection)
         (token (format "starfill-%d" (cl-incf starfill-server--tokens)))
         (over nil)
         (end (lambda (items)
                (remhash token starfill-server--listeners)
                (unless over
                  (setq over t)
                  (funcall on-items items t))))
         id)
    (puthash token (lambda (items) (unless over (funcall on-items items nil))) starfill-server--listeners)
    (jsonrpc-async-request
     peer 'textDocument/inlineCompletion
     (list :textDocument (starfill-document-identifier)
           :position (starfill-document-position)
           :context (list :triggerKind (if invoked 1 2))
           :partialResultToken token
           :formattingOptions (list :tabSize tab-width :insertSpaces (if indent-tabs-mode :json-false t)))
     :timeout nil
     :success-fn (lambda (result)
                   (funcall end (append (if (keywordp (car-safe result)) (plist-get result :items) result) nil)))
     :error-fn (lambda (_error) (funcall end nil)))
    (setq id (oref peer last-id))
    (lambda ()
      (unless over
        (setq over t)
        (remhash token starfill-server--listeners)
        (when (jsonrpc-running-p peer)
          (jsonrpc-notify peer '$/cancelRequest (list :id id)))))))

(defun starfill-server-shown (item)
  "Tell the server that ITEM was shown."
  (starfill-server--notify 'textDocument/didShowCompletion (list :item item)))

(defun starfill-server-partly-accepted (item length)
  "Tell the server that LENGTH UTF-16 units of ITEM have been taken."
  (starfill-server--notify 'textDocument/didPartiallyAcceptCompletion (list :item item :acceptedLength length)))

(defun starfill-server-accepted (item)
  "Tell the server that all of ITEM was taken."
  (when-let ((command (plist-get item :command)))
    (starfill-server-execute (plist-get command :command) (plist-get command :arguments) #'ignore)))

(defun starfill-server-execute (command arguments on-result)
  "Have the server execute COMMAND with the vector ARGUMENTS.
ON-RESULT is called with what it returns."
  (when (starfill-server-ready-p)
    (jsonrpc-async-request starfill-server--connection 'workspace/executeCommand
                           (list :command command :arguments (or arguments []))
                           :timeout nil :success-fn on-result :error-fn #'ignore)))

(provide 'starfill-server)
;;; starfill-server.el ends here
