--- Options of the plugin, checked where they are set.
local M = {}

---@class starfill.Keymap
---@field accept string|false take the whole suggestion
---@field accept_word string|false take its next word
---@field accept_line string|false take its next line
---@field next string|false show the next candidate
---@field prev string|false show the previous candidate
---@field dismiss string|false hide the suggestion
---@field trigger string|false ask now, whatever the automatic rules say

---@class starfill.Config
---@field cmd string[] how the server is started; flags such as `--model` go here
---@field enabled boolean whether suggestions appear while typing
---@field filetypes table<string, boolean> switch by file type; `["*"]` is for all others
---@field hide_with_popup boolean no ghost text while the completion menu is open
---@field settings table<string, any> server settings, see docs/configuration.md
---@field keymap starfill.Keymap|false `false` maps nothing
M.defaults = {
  cmd = { "starfill", "lsp" },
  enabled = true,
  filetypes = {},
  hide_with_popup = true,
  settings = {},
  keymap = {
    accept = "<Tab>",
    accept_word = "<M-Right>",
    accept_line = "<M-C-Right>",
    next = "<M-]>",
    prev = "<M-[>",
    dismiss = "<C-]>",
    trigger = "<M-\\>",
  },
}

---@type starfill.Config
M.options = vim.deepcopy(M.defaults)

---@param options table
---@param defaults table
---@param path string where `options` stands, for messages
local function check(options, defaults, path)
  for key, value in pairs(options) do
    local default = defaults[key]
    if default == nil then
      local known = vim.tbl_keys(defaults)
      table.sort(known)
      error(("starfill: unknown option %s%s; known are %s"):format(path, key, table.concat(known, ", ")), 0)
    end
    local optional = path == "keymap." or key == "keymap"
    if type(value) ~= type(default) and not (optional and value == false) then
      error(("starfill: option %s%s must be a %s, not %s"):format(path, key, type(default), vim.inspect(value)), 0)
    end
  end
end

--- Put the user's options over the defaults; raises an error that names the option and the remedy.
---@param options? table
---@return starfill.Config
function M.set(options)
  options = options or {}
  check(options, M.defaults, "")
  if type(options.keymap) == "table" then
    check(options.keymap, M.defaults.keymap, "keymap.")
  end
  M.options = vim.tbl_deep_extend("force", vim.deepcopy(M.defaults), options)
  M.options.cmd = options.cmd or M.defaults.cmd -- a list is replaced, not merged
  return M.options
end

local EXAMINED = {
  ["--engine"] = true,
  ["--model"] = true,
  ["--token-file"] = true,
  ["--device"] = true,
  ["--dtype"] = true,
  ["--kv-memory"] = true,
}

--- The flags in `cmd` that say what there is to examine.
---@return string[]
function M.examined()
  local found, value = {}, false
  for _, argument in ipairs(M.options.cmd) do
    local name = argument:match("^[^=]*")
    if value or EXAMINED[name] then
      found[#found + 1] = argument
    end
    value = not value and EXAMINED[argument] or false -- `--model X`, where `--model=X` is one
  end
  return found
end

--- Whether suggestions are wanted in this buffer: for its file type, and as long as it is an ordinary file.
---@param bufnr integer
---@return boolean
function M.wanted(bufnr)
  local by_type = M.options.filetypes
  local wanted = by_type[vim.bo[bufnr].filetype]
  if wanted == nil then
    wanted = by_type["*"]
  end
  return M.options.enabled and wanted ~= false and vim.bo[bufnr].buftype == "" and vim.bo[bufnr].modifiable
end

return M
