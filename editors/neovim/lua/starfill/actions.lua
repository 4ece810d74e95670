--- Code that is rewritten as told, and answers in words. The other code actions stand in `vim.lsp.buf.code_action()`.

local server = require("starfill.server")

local M = {}

local WORDS = { explain = true, tests = true }
local LOST = { outdated = true, not_applied = true } -- an edit that did not come to pass is shown
local KNOWN = { cancelled = true, superseded = true }

---@type integer? the buffer that answers are shown in
local shown_in

--- Show a text in a window of its own; the cursor stays where it is.
---@param text string
local function show_text(text)
  if not shown_in or not vim.api.nvim_buf_is_valid(shown_in) then
    shown_in = vim.api.nvim_create_buf(false, true)
    vim.bo[shown_in].filetype = "markdown"
    vim.api.nvim_buf_set_name(shown_in, "starfill://answer")
  end
  vim.api.nvim_buf_set_lines(shown_in, 0, -1, false, vim.split(text, "\n", { plain = true }))
  if vim.fn.bufwinid(shown_in) == -1 then
    local here = vim.api.nvim_get_current_win()
    vim.cmd("botright sbuffer " .. shown_in)
    vim.api.nvim_set_current_win(here)
  end
end

--- Show what came of an action: words, or why there are none. Neovim's own client applies edits.
---@param answer { task: string, text: string, done: boolean, reason?: string, message?: string }
function M.show(answer)
  if not answer.done then
    return
  end
  if answer.message and not KNOWN[answer.reason] then
    vim.notify("starfill: " .. answer.message, vim.log.levels.WARN)
  end
  if answer.text ~= "" and (WORDS[answer.task] or LOST[answer.reason]) then
    show_text(answer.text)
  end
end

--- Have lines rewritten, or something new written at the cursor. Neovim's own client applies the edit.
---@param lines {[1]: integer, [2]: integer}? first and last line, from 1; at the cursor if nil
---@param instruction string what to do with them
function M.rewrite(lines, instruction)
  local client = server.client(vim.api.nvim_get_current_buf())
  if not client then
    return vim.notify("starfill: " .. (server.status.message or "not attached here"), vim.log.levels.WARN)
  end
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  local range = { start = params.position, ["end"] = params.position }
  if lines then
    range = { start = { line = lines[1] - 1, character = 0 }, ["end"] = { line = lines[2], character = 0 } }
  end
  local argument = { uri = params.textDocument.uri, range = range, instruction = instruction }
  server.call(client, "request", "workspace/executeCommand", {
    command = "starfill.rewrite",
    arguments = { argument },
  }, function(problem)
    if problem then
      vim.notify("starfill: " .. problem.message, vim.log.levels.WARN)
    end
  end)
end

return M
