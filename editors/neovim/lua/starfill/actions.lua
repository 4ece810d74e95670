--- Code that is rewritten as told. The other code actions stand in `vim.lsp.buf.code_action()`.

local server = require("starfill.server")

local M = {}

--- Have lines rewritten, or something new written at the cursor. Neovim's own client applies the edit, and says why not.
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
