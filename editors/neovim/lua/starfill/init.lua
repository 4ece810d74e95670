--- Ghost text from the starfill language server, as you type.
---
--- One suggestion at a time: the cursor's. A key that agrees with it leaves the rest standing, without a word to the server;
--- any other key asks anew. What is drawn always fits the text it is drawn in.
local config = require("starfill.config")
local ghost = require("starfill.ghost")
local menu = require("starfill.menu")
local server = require("starfill.server")
local Suggestion = require("starfill.suggestion")

local M = {}

---@type starfill.Suggestion?
local current
---@type fun()?
local cancel
---@type string? text, cursor and buffer that were last looked at: typing one key raises several events
local seen
---@type string? where the user asked for a suggestion that has not come: whoever asks again asks as invoked
local invoked_at

local function insert_mode()
  return vim.api.nvim_get_mode().mode:sub(1, 1) == "i"
end

--- Whether a completion menu is open under which nothing must be shown, nor taken.
---@return boolean
local function hidden()
  return config.options.hide_with_popup and menu.is_open()
end

local function where()
  local bufnr = vim.api.nvim_get_current_buf()
  local row, column = unpack(vim.api.nvim_win_get_cursor(0))
  return table.concat({ bufnr, vim.b[bufnr].changedtick, row, column, tostring(hidden()) }, ":")
end

local function stop_asking()
  if cancel then
    cancel()
    cancel = nil
  end
end

--- Draw what fits here of the current suggestion, or erase it.
---@return string? rest
local function redraw()
  if not current then
    return nil
  end
  local rest = insert_mode() and current:rest() or nil
  if not rest or rest == "" or hidden() then
    ghost.erase(current.bufnr)
    return rest
  end
  local row, column = unpack(vim.api.nvim_win_get_cursor(0))
  ghost.draw(current.bufnr, row - 1, column, rest, current:origin())
  local item = current:item()
  local id = tostring(item.command and item.command.arguments[1] or current.index)
  local client = server.client(current.bufnr)
  if client and current.final and not current.told[id] then
    current.told[id] = true
    server.shown(client, item)
  end
  return rest
end

--- Put away the suggestion and whatever is still being asked.
function M.dismiss()
  stop_asking()
  invoked_at = nil
  if current then
    ghost.erase(current.bufnr)
    current = nil
  end
end

--- Ask for a suggestion at the cursor. What is shown stays until there is something newer to show.
---@param invoked boolean
---@param on_final? fun()
local function ask(invoked, on_final)
  stop_asking()
  seen = where() -- events of keys typed before must not ask anew
  local client = server.client(vim.api.nvim_get_current_buf())
  if not client then
    M.dismiss()
  end
  invoked_at = invoked and seen or nil
  if not client then
    return
  end
  local asked = Suggestion.here()
  cancel = server.request(client, invoked, function(items, final)
    if final then
      cancel = nil
    end
    if #items > 0 then
      invoked_at = nil
    end
    if #items > 0 or final then
      asked.items, asked.final = items, final
      current = asked
      redraw()
    end
    if final and on_final then
      on_final()
    end
  end)
end

--- The text or the cursor moved.
local function changed()
  if not insert_mode() or where() == seen then
    return
  end
  seen = where()
  local bufnr = vim.api.nvim_get_current_buf()
  if not config.wanted(bufnr) then
    return M.dismiss()
  end
  local rest = redraw()
  if not rest then
    if current then
      ghost.erase(current.bufnr)
      current = nil
    end
    ask(false)
  elseif rest == "" or not current.final then
    ask(false)
  else
    stop_asking()
  end
end

--- Insert text at the cursor and stand behind it.
---@param text string
local function insert(text)
  local row, column = unpack(vim.api.nvim_win_get_cursor(0))
  local lines = vim.split(text, "\n", { plain = true })
  vim.api.nvim_buf_set_text(0, row - 1, column, row - 1, column, lines)
  local last = lines[#lines]
  vim.api.nvim_win_set_cursor(0, { row + #lines - 1, (#lines == 1 and column or 0) + #last })
end

--- Whether there is something to accept.
---@return boolean
function M.visible()
  local rest = current and insert_mode() and current:rest()
  return rest ~= nil and rest ~= false and rest ~= "" and not hidden()
end

--- The suggestion that is shown, for other plugins.
---@return starfill.Suggestion?
function M.current()
  return current
end

--- Take the suggestion, or the next word or line of it. The rest stays.
---@param kind? "all"|"word"|"line"
---@return boolean taken whether there was one
function M.accept(kind)
  local rest = current and current:rest()
  if not current or not rest or rest == "" or hidden() then
    return false
  end
  local part = Suggestion.part(rest, kind or "all")
  local left = rest:sub(#part + 1)
  local client = server.client(current.bufnr)
  local item, length = current:item(), current:accepted_length(left)
  stop_asking()
  ghost.erase(current.bufnr)
  insert(part)
  if left == "" then
    current = nil
    if client then
      server.accepted(client, item)
    end
    changed()
  else
    if client then
      server.partly_accepted(client, item, length)
    end
    seen = where()
    redraw()
  end
  return true
end

--- Show another candidate; the server is asked for more of them once.
---@param step? integer 1 for the next, -1 for the one before
function M.cycle(step)
  local function turn()
    if current and #current.items > 1 then
      current.index = (current.index - 1 + (step or 1)) % #current.items + 1
      redraw()
    end
  end
  if current and current.asked_for_more then
    return turn()
  end
  ask(true, function()
    if current then
      current.asked_for_more = true
      turn()
    end
  end)
end

--- Ask now.
function M.trigger()
  server.attach(vim.api.nvim_get_current_buf())
  ask(true)
end

--- Switch suggestions on or off; without an argument, the other way round.
---@param enabled? boolean
function M.toggle(enabled)
  if enabled == nil then
    enabled = not config.options.enabled
  end
  config.options.enabled = enabled
  seen = nil
  if enabled then
    server.attach(vim.api.nvim_get_current_buf())
  else
    M.dismiss()
  end
  vim.api.nvim_exec_autocmds("User", { pattern = "StarfillStatus", modeline = false })
end

local BUSY, IDLE, OFF, TROUBLE = "✦…", "✦", "✧", "✦!"

--- A word for the statusline: what starfill is doing, and why nothing came.
---@return string
function M.statusline()
  local status = server.status
  if not config.options.enabled or status.kind == "Inactive" then
    return OFF
  end
  local sign = status.busy and BUSY or (status.kind == "Normal" and IDLE or TROUBLE)
  -- Without a reason why nothing is shown, a message is about what is shown: where it stands verbatim.
  local word = (status.kind ~= "Normal" or not status.reason) and status.message or status.reason
  return word and word ~= "" and (sign .. " " .. word) or sign
end

local function attach(event)
  local bufnr = event and event.buf or vim.api.nvim_get_current_buf()
  if vim.api.nvim_buf_is_loaded(bufnr) and config.wanted(bufnr) and vim.api.nvim_buf_get_name(bufnr) ~= "" then
    server.attach(bufnr)
  end
end

--- What was typed while nobody could answer is asked now.
---@param attached boolean whether the server is a new one, which answers nothing that was asked before
local function catch_up(attached)
  if M.visible() then
    return
  end
  if insert_mode() and invoked_at == where() then
    if attached or not cancel then
      ask(true)
    end
  else
    seen = nil
    changed()
  end
end

local function highlights()
  vim.api.nvim_set_hl(0, "StarfillGhost", { default = true, link = "Comment" })
  vim.api.nvim_set_hl(0, "StarfillNote", { default = true, link = "DiagnosticVirtualTextInfo" })
end

local function listen()
  local group = vim.api.nvim_create_augroup("starfill", { clear = true })
  local function on(events, callback, pattern)
    vim.api.nvim_create_autocmd(events, { group = group, callback = callback, pattern = pattern })
  end
  on({ "FileType", "BufEnter", "BufFilePost" }, attach)
  on("InsertEnter", function()
    seen = nil
    attach()
    changed()
  end)
  local function soon()
    -- Within CompleteChanged the text must not be looked at yet.
    vim.schedule(changed)
  end
  on({ "TextChangedI", "TextChangedP", "CursorMovedI", "CompleteChanged", "CompleteDone" }, function()
    menu.watch(soon)
    soon()
  end)
  on("User", soon, { "BlinkCmpMenuOpen", "BlinkCmpMenuClose" })
  on({ "InsertLeave", "BufLeave" }, M.dismiss)
  -- Ctrl-C leaves insert mode without InsertLeave. A command line within it (<C-r>=) does not leave it.
  on({ "ModeChanged", "CursorMoved" }, function()
    if (current or cancel) and not vim.api.nvim_get_mode().mode:find("^[ic]") then
      M.dismiss()
    end
  end)
  on("LspAttach", function(event)
    local client = vim.lsp.get_client_by_id(event.data.client_id)
    if client and client.name == "starfill" and event.buf == vim.api.nvim_get_current_buf() then
      catch_up(true)
    end
  end)
  on("User", function()
    catch_up(false)
  end, "StarfillReady")
  on("ColorScheme", highlights)
  on("VimLeavePre", server.stop)
end

local set_up = false

--- Whether `setup` was called.
---@return boolean
function M.is_set_up()
  return set_up
end

--- Start: options as in `:help starfill-options`.
---@param options? table
function M.setup(options)
  set_up = true -- with wrong options too: the defaults are not what somebody wants who set others
  config.set(options)
  highlights()
  require("starfill.keymap").map()
  listen()
  attach()
end

return M
