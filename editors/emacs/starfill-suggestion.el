;;; starfill-suggestion.el --- A suggestion and what is left of it  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; What the model said at a place, and how much of it the text typed since
;; leaves over.  Reads the buffer; draws nothing and asks nobody.

;;; Code:

(require 'cl-lib)
(require 'subr-x)

(cl-defstruct (starfill-suggestion (:constructor starfill-suggestion--make))
  "What the server sent for one place."
  (buffer nil :documentation "Where it belongs.")
  (start nil :documentation "Marker at the place.")
  (before nil :documentation "The line left of the place.")
  (after nil :documentation "The line right of the place.")
  (items nil :documentation "What the server sent: a list of plists.")
  (index 0 :documentation "Which of them is shown.")
  (final nil :documentation "Whether the server has said all.")
  (asked-for-more nil :documentation "Whether the candidates are all here.")
  (told nil :documentation "Ids that the server knows to have been shown."))

(defun starfill-suggestion-here ()
  "Return a place for suggestions at point; items come later."
  (let ((inhibit-field-text-motion t))
    (starfill-suggestion--make
     :buffer (current-buffer)
     :start (copy-marker (point))
     :before (buffer-substring-no-properties (line-beginning-position) (point))
     :after (buffer-substring-no-properties (point) (line-end-position)))))

(defun starfill-suggestion-drop (suggestion)
  "Let SUGGESTION's marker go."
  (set-marker (starfill-suggestion-start suggestion) nil))

(defun starfill-suggestion-item (suggestion)
  "Return the item of SUGGESTION that is shown, if there is one."
  (nth (starfill-suggestion-index suggestion) (starfill-suggestion-items suggestion)))

(defun starfill-suggestion-id (suggestion)
  "Return the id of SUGGESTION's item."
  (let ((arguments (plist-get (plist-get (starfill-suggestion-item suggestion) :command) :arguments)))
    (and (> (length arguments) 0) (elt arguments 0))))

(defun starfill-suggestion-origin (suggestion)
  "Return where SUGGESTION's item is known to stand verbatim, or nil.
The value is a cons cell: package and licence, and the whole of it."
  (let ((origins (plist-get (starfill-suggestion-item suggestion) :attribution)))
    (when (> (length origins) 0)
      (let* ((origin (elt origins 0))
             (package (plist-get origin :package))
             (licence (plist-get origin :licence)))
        (cons (format "%s, %s" package licence)
              (format "verbatim as in %s, %s line %s (%s)%s" package (plist-get origin :path)
                      (plist-get origin :line) licence (if (> (length origins) 1) " and elsewhere" "")))))))

(defun starfill-suggestion-text (suggestion)
  "Return the text of SUGGESTION's item, with line ends as in a buffer."
  (when-let ((item (starfill-suggestion-item suggestion)))
    (let ((text (plist-get item :insertText)))
      (replace-regexp-in-string "\r\n?" "\n" (if (stringp text) text (plist-get text :value)) t t))))

(defun starfill-suggestion-rest (suggestion)
  "Return what is left of SUGGESTION at point, or nil if something else was typed."
  (let ((text (starfill-suggestion-text suggestion))
        (start (starfill-suggestion-start suggestion))
        (inhibit-field-text-motion t))
    (when (and text
               (eq (marker-buffer start) (current-buffer))
               (<= (point-min) start (point))
               ;; No more than the text can have been typed: spares looking at what is far away.
               (<= (- (point) start) (length text))
               (equal (starfill-suggestion-after suggestion)
                      (buffer-substring-no-properties (point) (line-end-position)))
               (equal (starfill-suggestion-before suggestion)
                      (save-excursion
                        (goto-char start)
                        (buffer-substring-no-properties (line-beginning-position) start))))
      (let ((typed (buffer-substring-no-properties start (point))))
        (and (string-prefix-p typed text) (substring text (length typed)))))))

(defun starfill-suggestion-accepted-length (suggestion rest)
  "Return how many UTF-16 units of SUGGESTION are taken when REST is left."
  (let ((text (starfill-suggestion-text suggestion)))
    (starfill-suggestion-units (substring text 0 (- (length text) (length rest))))))

(defun starfill-suggestion-units (text)
  "Return how many UTF-16 units TEXT has."
  (+ (length text) (cl-count-if (lambda (char) (<= #x10000 char #x10ffff)) text)))

(defun starfill-suggestion-part (rest kind)
  "Return the part of REST that a key accepts: KIND is `all', `word' or `line'."
  (pcase kind
    ('word
     ;; Blanks, then a run of word characters (any beyond ASCII too) or one of punctuation.
     (if (string-match "\\`[ \t\n]*\\(?:\\(?:[[:alnum:]_]\\|[[:nonascii:]]\\)+\\|[^[:alnum:]_ \t\n[:nonascii:]]+\\)" rest)
         (match-string 0 rest)
       rest))
    ('line
     (if (string-match "\\`\n*[^\n]+\n?" rest) (match-string 0 rest) rest))
    (_ rest)))

(provide 'starfill-suggestion)
;;; starfill-suggestion.el ends here
