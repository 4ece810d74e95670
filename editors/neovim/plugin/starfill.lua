if vim.g.loaded_starfill then
  return
end
vim.g.loaded_starfill = true

local commands = {
  enable = function(starfill)
    starfill.toggle(true)
  end,
  disable = function(starfill)
    starfill.toggle(false)
  end,
  toggle = function(starfill)
    starfill.toggle()
  end,
  trigger = function(starfill)
    starfill.trigger()
  end,
  status = function()
    local server = require("starfill.server")
    local client = server.client(vim.api.nvim_get_current_buf())
    if not client then
      return vim.notify("starfill: " .. server.status.message)
    end
    server.describe(client, function(result)
      vim.notify(vim.inspect(result))
    end)
  end,
  restart = function(starfill)
    require("starfill.server").stop()
    vim.defer_fn(function()
      starfill.toggle(true)
    end, 200)
  end,
  log = function()
    local get_path = vim.lsp.log and vim.lsp.log.get_filename or vim.lsp.get_log_path
    vim.cmd.tabedit(get_path())
  end,
}

vim.api.nvim_create_user_command("Starfill", function(arguments)
  local command = commands[arguments.args]
  if not command then
    local known = vim.tbl_keys(commands)
    table.sort(known)
    return vim.notify("Starfill: one of " .. table.concat(known, ", "), vim.log.levels.ERROR)
  end
  command(require("starfill"))
end, {
  nargs = 1,
  desc = "starfill: enable, disable, toggle, trigger, status, restart, log",
  complete = function(lead)
    local found = vim.tbl_filter(function(name)
      return vim.startswith(name, lead)
    end, vim.tbl_keys(commands))
    table.sort(found)
    return found
  end,
})

-- Being here is enough: without a call of setup() the options are those in vim.g.starfill, or the defaults.
local function set_up()
  local options = vim.g.starfill
  if options ~= false and not require("starfill").is_set_up() then
    require("starfill").setup(options)
  end
end

if vim.v.vim_did_enter == 1 then
  vim.schedule(set_up) -- a plugin manager that loads late calls setup() right after
else
  vim.api.nvim_create_autocmd("VimEnter", { once = true, callback = set_up })
end

vim.api.nvim_create_user_command("StarfillRewrite", function(arguments)
  local lines = arguments.range > 0 and { arguments.line1, arguments.line2 } or nil
  require("starfill.actions").rewrite(lines, arguments.args)
end, { nargs = "+", range = true, desc = "starfill: rewrite these lines as told" })
