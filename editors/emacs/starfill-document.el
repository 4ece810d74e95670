;;; starfill-document.el --- A buffer as the server sees it  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; Says what became of a buffer's text since it was last said, in the
;; protocol's terms: positions, versions, edits.  Sends nothing by itself.

;;; Code:

(require 'cl-lib)
(require 'subr-x)
(require 'url-util)

(defconst starfill-document--most-edits 100
  "So many edits are told one by one; beyond, the whole text is sent.")

(defconst starfill-document--languages
  '(("c++" . "cpp") ("c-or-c++" . "cpp") ("cuda" . "cuda-cpp") ("js" . "javascript") ("js2" . "javascript")
    ("js3" . "javascript") ("rjsx" . "javascriptreact") ("js-jsx" . "javascriptreact") ("js-json" . "json")
    ("tsx" . "typescriptreact") ("sh" . "shellscript") ("bash" . "shellscript") ("lisp-interaction" . "emacs-lisp")
    ("mhtml" . "html") ("html" . "html") ("sgml" . "xml") ("nxml" . "xml") ("makefile-gmake" . "makefile")
    ("makefile-bsdmake" . "makefile") ("tex" . "latex") ("latex" . "latex") ("plain-tex" . "latex") ("LaTeX" . "latex")
    ("conf-toml" . "toml") ("tuareg" . "ocaml") ("caml" . "ocaml") ("cperl" . "perl") ("f90" . "fortran")
    ("nasm" . "asm") ("gfm" . "markdown") ("ess-r" . "r") ("enh-ruby" . "ruby") ("rustic" . "rust")
    ("protobuf" . "proto") ("rst" . "restructuredtext") ("web" . "html") ("fundamental" . "plaintext")
    ("text" . "plaintext") ("python-base" . "python") ("csharp" . "csharp") ("terraform" . "hcl"))
  "Language ids of major modes whose name says another one.")

(defvar-local starfill-document--encoding nil
  "How the server counts characters: \"utf-16\" or \"utf-32\".
Nil if it was not told of this buffer.")
(defvar-local starfill-document--version 0 "How often the server was told of changes.")
(defvar-local starfill-document--edits nil "Edits to be told, the newest first; t for the whole text.")
(defvar-local starfill-document--before nil
  "What the edit under way may touch: (BEG END START STOP SIZE).
START and STOP are positions, SIZE is the buffer's before the edit.")
(defvar-local starfill-document--tick nil "State of the text after the last edit that we saw.")
(defvar-local starfill-document--told-uri nil "Under which name the server knows the buffer.")

(defun starfill-document-uri ()
  "Return the URI of the current buffer."
  (let ((allowed (copy-sequence url-path-allowed-chars)))
    (aset allowed ?: nil)
    (cond ((null buffer-file-name) (concat "untitled:" (url-hexify-string (buffer-name))))
          ;; A file on another machine is no file of this one.
          ((file-remote-p buffer-file-name) (concat "tramp:" (url-hexify-string buffer-file-name allowed)))
          (t (concat (if (string-prefix-p "/" buffer-file-name) "file://" "file:///")
                     (url-hexify-string buffer-file-name allowed))))))

(defun starfill-document-language ()
  "Return the language id of the current buffer."
  (let* ((mode (symbol-name major-mode))
         (name (replace-regexp-in-string "\\(?:-ts\\)?-mode\\'" "" mode)))
    (or (cdr (assoc name starfill-document--languages)) (downcase name))))

(defun starfill-document--text (beg end)
  "Return the text from BEG to END as the server may have it.
Each character stays one character: those that are not Unicode,
and carriage returns, which end no line in Emacs, are replaced."
  (let ((text (buffer-substring-no-properties beg end)))
    (if (string-match-p "[^\u0000-\u000c\u000e-\ud7ff\ue000-\U0010ffff]" text)
        (cl-map 'string
                (lambda (char)
                  (cond ((eq char ?\r) ?\s)
                        ((or (<= #xd800 char #xdfff) (> char #x10ffff)) #xfffd)
                        (t char)))
                text)
      text)))

(defun starfill-document-text ()
  "Return the text of the current buffer as the server may have it."
  (save-restriction
    (widen)
    (starfill-document--text (point-min) (point-max))))

(defun starfill-document-position (&optional position)
  "Return POSITION, or point, as line and character."
  (save-restriction
    (widen)
    (save-excursion
      (goto-char (or position (point)))
      (let* ((inhibit-field-text-motion t)
             (start (line-beginning-position))
             (count (- (point) start)))
        (when (equal starfill-document--encoding "utf-16")
          (save-match-data
            (while (re-search-backward "[\U00010000-\U0010ffff]" start t)
              (setq count (1+ count)))))
        (list :line (1- (line-number-at-pos start t)) :character count)))))

(defun starfill-document--before-change (beg end)
  "Remember where BEG and END are before an edit."
  (unless (eq starfill-document--tick (buffer-chars-modified-tick))
    ;; Something edited the text without running the hooks.
    (setq starfill-document--edits t))
  (unless (eq starfill-document--edits t)
    (setq starfill-document--before
          (list beg end (starfill-document-position beg) (starfill-document-position end) (buffer-size)))))

(defun starfill-document--after-change (beg end length)
  "Note the edit that put BEG to END in the place of LENGTH characters."
  (pcase-let ((`(,from ,to ,start ,stop ,size) starfill-document--before))
    (setq starfill-document--before nil
          starfill-document--tick (buffer-chars-modified-tick))
    (cond ((eq starfill-document--edits t))
          ;; The edit may be smaller than it was announced to be, but not elsewhere.
          ((and from (<= from beg) (>= to (+ beg length))
                ;; Else another hook edited the text within the edit.
                (= (buffer-size) (+ size (- end beg length)))
                (< (length starfill-document--edits) starfill-document--most-edits))
           (push (list :range (list :start start :end stop)
                       :text (save-restriction
                               (widen)
                               (starfill-document--text from (+ to (- end beg length)))))
                 starfill-document--edits))
          (t (setq starfill-document--edits t)))))

(defun starfill-document-outdated ()
  "Have the whole text of the current buffer sent next."
  (when starfill-document--encoding
    (setq starfill-document--edits t)))

(defun starfill-document-open (encoding)
  "Return the params of didOpen; from here on, edits are noted.
ENCODING is how the server counts characters."
  (setq starfill-document--encoding encoding
        starfill-document--version 0
        starfill-document--edits nil
        starfill-document--before nil
        starfill-document--tick (buffer-chars-modified-tick)
        starfill-document--told-uri (starfill-document-uri))
  (add-hook 'before-change-functions #'starfill-document--before-change nil t)
  (add-hook 'after-change-functions #'starfill-document--after-change nil t)
  (add-hook 'after-revert-hook #'starfill-document-outdated nil t)
  (list :textDocument (list :uri starfill-document--told-uri
                            :languageId (starfill-document-language)
                            :version starfill-document--version
                            :text (starfill-document-text))))

(defun starfill-document-changes ()
  "Return the params of didChange, or nil if nothing changed."
  (unless (eq starfill-document--tick (buffer-chars-modified-tick))
    ;; Something edited the text without running the hooks.
    (setq starfill-document--edits t))
  (when starfill-document--edits
    (prog1 (list :textDocument (list :uri starfill-document--told-uri
                                     :version (cl-incf starfill-document--version))
                 :contentChanges (if (eq starfill-document--edits t)
                                     (vector (list :text (starfill-document-text)))
                                   (vconcat (reverse starfill-document--edits))))
      (setq starfill-document--edits nil
            starfill-document--tick (buffer-chars-modified-tick)))))

(defun starfill-document-close ()
  "Return the params of didClose, or nil; edits are not noted any more."
  (remove-hook 'before-change-functions #'starfill-document--before-change t)
  (remove-hook 'after-change-functions #'starfill-document--after-change t)
  (remove-hook 'after-revert-hook #'starfill-document-outdated t)
  (when starfill-document--encoding
    (setq starfill-document--encoding nil
          starfill-document--edits nil)
    (list :textDocument (list :uri starfill-document--told-uri))))

(defun starfill-document-told-p ()
  "Return non-nil if the server was told of the current buffer."
  (and starfill-document--encoding t))

(defun starfill-document-renamed-p ()
  "Return non-nil if the server knows the current buffer under another name."
  (and starfill-document--encoding
       (not (equal starfill-document--told-uri (starfill-document-uri)))))

(defun starfill-document-identifier ()
  "Return what names the current buffer in a request."
  (list :uri starfill-document--told-uri))

(provide 'starfill-document)
;;; starfill-document.el ends here
