--- `:checkhealth starfill`
local config = require("starfill.config")
local server = require("starfill.server")

local M = {}

local health = vim.health

local function check_doctor(program)
  local command = vim.list_extend({ program, "doctor", "--json" }, config.examined())
  local run = vim.system(command, { text = true, timeout = 60000 }):wait()
  local ok, report = pcall(vim.json.decode, run.stdout or "")
  if not ok then
    return health.error(("`%s doctor` did not answer"):format(program), vim.trim(run.stderr or ""))
  end
  for _, check in ipairs(report.checks or report) do
    local line = ("%s: %s"):format(check.name, check.detail or check.found or "")
    if check.ok == false or check.status == "error" or check.status == "bad" then
      health.warn(line, check.remedy and { check.remedy } or nil)
    else
      health.ok(line)
    end
  end
end

function M.check()
  health.start("starfill")
  if vim.fn.has("nvim-0.10") == 0 then
    return health.error("Neovim 0.10 or newer is needed")
  end
  health.ok("Neovim " .. tostring(vim.version()))
  local program = config.options.cmd[1]
  if vim.fn.executable(program) == 0 then
    return health.error(("`%s` is not on PATH"):format(program), { "pipx install starfill, or set `cmd` in setup()" })
  end
  health.ok(("`%s` is %s"):format(program, vim.fn.exepath(program)))
  local clients = vim.lsp.get_clients({ name = "starfill" })
  if #clients == 0 then
    health.info("no buffer is attached: open a file")
  end
  for _, client in ipairs(clients) do
    local buffers = vim.tbl_count(client.attached_buffers or {})
    health.ok(("server runs, %d buffers attached, positions in %s"):format(buffers, client.offset_encoding))
  end
  local said = server.status.message ~= "" and server.status.message or "ready"
  health.info(("status: %s (%s)"):format(said, server.status.kind))
  check_doctor(program)
end

return M
