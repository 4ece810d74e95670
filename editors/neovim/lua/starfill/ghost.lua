--- Ghost text: how a suggestion is drawn at the cursor, and erased. Knows no server.
local M = {}

M.namespace = vim.api.nvim_create_namespace("starfill")
local notes = vim.api.nvim_create_namespace("starfill.note")

--- Virtual text shows a tab as one cell: draw what the buffer would show.
---@param text string
---@param column integer screen column where it starts
---@return string
local function expand_tabs(text, column)
  if not text:find("\t", 1, true) then
    return text
  end
  local tabstop = vim.bo.tabstop
  local parts, width = {}, column
  for before, tab in text:gmatch("([^\t]*)(\t?)") do
    parts[#parts + 1] = before
    width = width + vim.fn.strdisplaywidth(before)
    if tab ~= "" then
      local blanks = tabstop - width % tabstop
      parts[#parts + 1] = (" "):rep(blanks)
      width = width + blanks
    end
  end
  return table.concat(parts)
end

--- Draw `text` after the byte column of a row, in place of what was drawn before.
---@param bufnr integer
---@param row integer from 0
---@param column integer byte column from 0
---@param text string
---@param note? string what is said of it, at the end of the line
function M.draw(bufnr, row, column, text, note)
  local lines = vim.split(text, "\n", { plain = true })
  local before = vim.api.nvim_buf_get_text(bufnr, row, 0, row, column, {})[1]
  local below = {}
  for number = 2, #lines do
    below[#below + 1] = { { expand_tabs(lines[number], 0), "StarfillGhost" } }
  end
  vim.api.nvim_buf_set_extmark(bufnr, M.namespace, row, column, {
    id = 1,
    virt_text = { { expand_tabs(lines[1], vim.fn.strdisplaywidth(before)), "StarfillGhost" } },
    virt_text_pos = "inline",
    virt_lines = #below > 0 and below or nil,
    hl_mode = "combine",
    right_gravity = true,
  })
  vim.api.nvim_buf_clear_namespace(bufnr, notes, 0, -1)
  if note then
    vim.api.nvim_buf_set_extmark(bufnr, notes, row, 0, {
      virt_text = { { "  " .. note, "StarfillNote" } },
      virt_text_pos = "eol",
    })
  end
end

--- Erase what is drawn in a buffer.
---@param bufnr integer
function M.erase(bufnr)
  if vim.api.nvim_buf_is_valid(bufnr) then
    vim.api.nvim_buf_clear_namespace(bufnr, M.namespace, 0, -1)
    vim.api.nvim_buf_clear_namespace(bufnr, notes, 0, -1)
  end
end

return M
