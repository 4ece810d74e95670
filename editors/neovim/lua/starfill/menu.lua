--- Completion menus of others: Neovim's own, nvim-cmp's and blink.cmp's.
local M = {}

local watched = false

--- Call a function of a plugin that is loaded; one that fails says no.
---@param plugin string
---@param names string[] the first of these that it has
---@return boolean
local function says(plugin, names)
  local loaded = package.loaded[plugin]
  for _, name in ipairs(type(loaded) == "table" and names or {}) do
    if type(loaded[name]) == "function" then
      local ok, answer = pcall(loaded[name])
      return ok and not not answer
    end
  end
  return false
end

--- Whether a menu is open.
---@return boolean
function M.is_open()
  return vim.fn.pumvisible() == 1
    or says("cmp", { "visible" })
    or says("blink.cmp", { "is_menu_visible", "is_visible" })
end

--- Have nvim-cmp say when its menu opens or closes, once it is loaded. Others have autocommands for that.
---@param callback fun()
function M.watch(callback)
  local cmp = package.loaded["cmp"]
  if watched or type(cmp) ~= "table" or type(cmp.event) ~= "table" then
    return
  end
  watched = true
  for _, event in ipairs({ "menu_opened", "menu_closed" }) do
    pcall(cmp.event.on, cmp.event, event, callback)
  end
end

return M
