--- One suggestion: what the model said at a place, and how much of it the text since typed leaves over.
--- Pure but for reading the buffer; draws nothing and asks nobody.
local M = {}
M.__index = M

---@class starfill.Suggestion
---@field bufnr integer
---@field row integer where it starts, from 0
---@field column integer byte column where it starts
---@field before string the line left of there
---@field after string the line right of there
---@field items table[] what the server sent
---@field index integer which of them is shown, from 1
---@field final boolean whether the server has said all
---@field told table<string, boolean> items that the server knows to have been shown

--- What stands at the cursor of the current window.
---@return integer row, integer column, string before, string after
local function at_cursor()
  local row, column = unpack(vim.api.nvim_win_get_cursor(0))
  local line = vim.api.nvim_get_current_line()
  return row - 1, column, line:sub(1, column), line:sub(column + 1)
end

--- A place for suggestions at the cursor; `items` come later.
---@return starfill.Suggestion
function M.here()
  local row, column, before, after = at_cursor()
  return setmetatable({
    bufnr = vim.api.nvim_get_current_buf(),
    row = row,
    column = column,
    before = before,
    after = after,
    items = {},
    index = 1,
    final = false,
    told = {},
  }, M)
end

---@return table? item the one that is shown
function M:item()
  return self.items[self.index]
end

---@return string? text of the shown item, line ends as in a buffer
function M:text()
  local item = self:item()
  local text = item and (type(item.insertText) == "table" and item.insertText.value or item.insertText)
  return text and (text:gsub("\r\n?", "\n"))
end

--- Where the shown item stands verbatim, in words, if the server knows such a place.
---@return string?
function M:origin()
  local item = self:item()
  local origin = item and item.attribution and item.attribution[1]
  if not origin then
    return nil
  end
  local others = #item.attribution > 1 and " and elsewhere" or ""
  return ("as in %s, %s:%d (%s)%s"):format(origin.package, origin.path, origin.line, origin.licence, others)
end

--- What is left of the text after what was typed since, or nil if something else was typed.
---@return string?
function M:rest()
  local text = self:text()
  if not text or vim.api.nvim_get_current_buf() ~= self.bufnr then
    return nil
  end
  local row, column, _, after = at_cursor()
  if row < self.row or (row == self.row and column < self.column) or after ~= self.after then
    return nil
  end
  local start = vim.api.nvim_buf_get_lines(self.bufnr, self.row, self.row + 1, false)[1] or ""
  if start:sub(1, self.column) ~= self.before then
    return nil
  end
  local typed = table.concat(vim.api.nvim_buf_get_text(self.bufnr, self.row, self.column, row, column, {}), "\n")
  return vim.startswith(text, typed) and text:sub(#typed + 1) or nil
end

--- UTF-16 units of the shown text up to what is left of it.
---@param rest string
---@return integer
function M:accepted_length(rest)
  local text = self:text()
  local taken = text:sub(1, #text - #rest)
  local _, characters = taken:gsub("[^\128-\191]", "")
  local _, astral = taken:gsub("[\240-\247]", "")
  return characters + astral
end

--- The part of `rest` that a key accepts.
---@param rest string
---@param kind "all"|"word"|"line"
---@return string
function M.part(rest, kind)
  if kind == "word" then
    -- Blanks, then a run of word characters (any beyond ASCII too) or one of punctuation.
    local part = rest:match("^%s*[%w_\128-\255]+") or rest:match("^%s*[^%w_%s\128-\255]+")
    return part or rest
  elseif kind == "line" then
    return rest:match("^\n*[^\n]+\n?") or rest
  end
  return rest
end

return M
