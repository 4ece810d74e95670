--- Keys in insert mode: ours while there is something to act on, and whatever they were before otherwise.
local config = require("starfill.config")

local M = {}

---@type table<string, table> what a key was mapped to before us
local previous = {}
---@type table<string, boolean>
local ours = {}

--- What the key would do without us.
---@param key string
---@return string keys to be typed
local function otherwise(key)
  local map = previous[key]
  if not map or vim.tbl_isempty(map) then
    return vim.keycode(key)
  end
  if map.callback then
    if map.expr == 1 then
      local keys = map.callback() or ""
      return map.replace_keycodes == 1 and vim.keycode(keys) or keys
    end
    -- The key's name stands within keys: its bracket must stay one.
    local name = key:gsub("<", "<lt>")
    return vim.keycode(("<Cmd>lua require('starfill.keymap').call(%q)<CR>"):format(name))
  end
  if map.expr == 1 then
    return vim.keycode(vim.api.nvim_eval(map.rhs))
  end
  return vim.keycode(map.rhs)
end

--- Run the Lua function that a key was mapped to before us.
---@param key string
function M.call(key)
  previous[key].callback()
end

---@param key string|false
---@param call string Lua to run, such as `accept("word")`
---@param always? boolean also when nothing is shown
local function map_key(key, call, always)
  if not key then
    return
  end
  if not ours[key] then
    previous[key] = vim.fn.maparg(key, "i", false, true)
    ours[key] = true
  end
  vim.keymap.set("i", key, function()
    if always or require("starfill").visible() then
      -- <C-g>u: what is accepted can be undone on its own.
      return vim.keycode(("<C-g>u<Cmd>lua require('starfill').%s<CR>"):format(call))
    end
    return otherwise(key)
  end, { expr = true, replace_keycodes = false, silent = true, desc = "starfill: " .. call })
end

--- Map the configured keys.
function M.map()
  local keys = config.options.keymap
  if not keys then
    return
  end
  map_key(keys.accept, [[accept("all")]])
  map_key(keys.accept_word, [[accept("word")]])
  map_key(keys.accept_line, [[accept("line")]])
  map_key(keys.dismiss, "dismiss()")
  map_key(keys.next, "cycle(1)", true)
  map_key(keys.prev, "cycle(-1)", true)
  map_key(keys.trigger, "trigger()", true)
end

return M
