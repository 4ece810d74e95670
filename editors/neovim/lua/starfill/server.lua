--- The language server: one for all buffers of this Neovim. Speaks the protocol; knows nothing of what is drawn.
local config = require("starfill.config")

local M = {}

local METHOD = "textDocument/inlineCompletion"

--- What stands in a project's root. A repository counts before a package within it.
local REPOSITORY = { ".git", ".hg", ".jj" }
local PROJECT = { "pyproject.toml", "package.json", "go.mod", "Cargo.toml" }

---@class starfill.Status
---@field kind "Normal"|"Warning"|"Error"|"Inactive"
---@field message string
---@field busy boolean
---@field reason? string why nothing came, from a closed set

---@type starfill.Status
M.status = { kind = "Inactive", message = "not started", busy = false }

---@type table<string, fun(items: table[])> who waits for the partial results of which token
local listeners = {}
local tokens = 0
---@type lsp.WorkspaceFolder[] folders that a server which is starting is yet to be told of
local untold = {}

local function set_status(status)
  M.status = status
  vim.api.nvim_exec_autocmds("User", { pattern = "StarfillStatus", modeline = false })
end

local function on_progress(err, params, context, options)
  local listener = params and listeners[params.token]
  if listener then
    listener(params.value.items or {})
    return
  end
  return vim.lsp.handlers["$/progress"](err, params, context, options)
end

local function capabilities()
  local made = vim.lsp.protocol.make_client_capabilities()
  -- The key alone tells the server that this client draws ghost text and wants no menu entries.
  made.textDocument.inlineCompletion = made.textDocument.inlineCompletion or { dynamicRegistration = false }
  return made
end

--- The project that a buffer's file is in, as the protocol has it.
---@param bufnr integer
---@return lsp.WorkspaceFolder?
local function folder_of(bufnr)
  local name = vim.api.nvim_buf_get_name(bufnr)
  if name == "" or name:find("^%a[%w+.-]+://") then
    return nil
  end
  local above = { upward = true, path = vim.fs.dirname(name) }
  local mark = vim.fs.find(REPOSITORY, above)[1] or vim.fs.find(PROJECT, above)[1]
  local root = mark and vim.fs.dirname(mark)
  return root and { uri = vim.uri_from_fname(root), name = root }
end

---@param client vim.lsp.Client
---@param folders lsp.WorkspaceFolder[]
local function tell_folders(client, folders)
  M.call(client, "notify", "workspace/didChangeWorkspaceFolders", { event = { added = folders, removed = {} } })
end

--- Have a client that runs already know one more project.
---@param client vim.lsp.Client
---@param folder lsp.WorkspaceFolder?
local function add_folder(client, folder)
  local known = client.workspace_folders or {}
  if not folder or vim.tbl_contains(vim.tbl_map(function(each)
    return each.uri
  end, known), folder.uri) then
    return
  end
  client.workspace_folders = vim.list_extend({ folder }, known)
  if client.initialized then
    tell_folders(client, { folder })
  else
    untold[#untold + 1] = folder
  end
end

---@param folder lsp.WorkspaceFolder?
local function client_config(folder)
  return {
    name = "starfill",
    workspace_folders = folder and { folder },
    cmd = config.options.cmd,
    capabilities = capabilities(),
    init_options = { starfill = vim.tbl_extend("force", config.options.settings, { status = true, answers = true }) },
    settings = { starfill = config.options.settings },
    handlers = {
      ["$/progress"] = on_progress,
      ["starfill/answer"] = function(_, params)
        require("starfill.actions").show(params)
      end,
      ["didChangeStatus"] = function(_, params)
        local loaded = M.status.reason == "loading" and params.reason ~= "loading"
        set_status(params)
        if loaded then
          vim.api.nvim_exec_autocmds("User", { pattern = "StarfillReady", modeline = false })
        end
      end,
    },
    on_init = function(client)
      if #untold > 0 then
        tell_folders(client, untold)
        untold = {}
      end
      set_status({ kind = "Normal", message = "", busy = false })
    end,
    on_exit = function(code)
      vim.schedule(function()
        listeners = {}
        untold = {}
        set_status({ kind = code == 0 and "Inactive" or "Error", message = "server ended with code " .. code, busy = false })
      end)
    end,
  }
end

--- The running client of a buffer, if it is attached.
---@param bufnr integer
---@return vim.lsp.Client?
function M.client(bufnr)
  return vim.lsp.get_clients({ name = "starfill", bufnr = bufnr })[1]
end

--- Start the server if need be, and attach the buffer to it.
---@param bufnr integer
function M.attach(bufnr)
  if M.client(bufnr) then
    return
  end
  if vim.fn.executable(config.options.cmd[1]) == 0 then
    local message = ("%s is not on PATH; install it (pipx install starfill) or set cmd"):format(config.options.cmd[1])
    if M.status.message ~= message then
      set_status({ kind = "Error", message = message, busy = false })
      vim.notify_once("starfill: " .. message, vim.log.levels.WARN)
    end
    return
  end
  local folder = folder_of(bufnr)
  vim.lsp.start(client_config(folder), {
    bufnr = bufnr,
    reuse_client = function(client)
      local ours = client.name == "starfill" and not M.call(client, "is_stopped")
      if ours then
        add_folder(client, folder) -- before the server hears of the document
      end
      return ours
    end,
  })
end

--- Ask for completions at the cursor of the current window.
---@param client vim.lsp.Client
---@param invoked boolean asked for by the user, not by a key that was typed
---@param on_items fun(items: table[], final: boolean) called as the text streams in, and once at the end
---@return fun() cancel stops the model; `on_items` is not called any more
function M.request(client, invoked, on_items)
  tokens = tokens + 1
  local token = "starfill-" .. tokens
  local over = false
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  params.context = { triggerKind = invoked and 1 or 2 }
  params.partialResultToken = token
  params.formattingOptions = { tabSize = vim.fn.shiftwidth(), insertSpaces = vim.bo.expandtab }
  listeners[token] = function(items)
    if not over then
      on_items(items, false)
    end
  end
  local function ended(_, result)
    listeners[token] = nil
    if not over then
      over = true
      on_items(result and (result.items or result) or {}, true)
    end
  end
  local bufnr = vim.api.nvim_get_current_buf()
  local sent, id = M.call(client, "request", METHOD, params, ended, bufnr)
  return function()
    if not over then
      over = true
      listeners[token] = nil
      if sent and id then
        M.call(client, "cancel_request", id)
      end
    end
  end
end

--- Tell the server that an item was shown.
---@param client vim.lsp.Client
---@param item table
function M.shown(client, item)
  M.call(client, "notify", "textDocument/didShowCompletion", { item = item })
end

--- Tell the server how much of an item was taken so far.
---@param client vim.lsp.Client
---@param item table
---@param length integer UTF-16 units of its text, from the start
function M.partly_accepted(client, item, length)
  M.call(client, "notify", "textDocument/didPartiallyAcceptCompletion", { item = item, acceptedLength = length })
end

--- Tell the server that all of an item was taken.
---@param client vim.lsp.Client
---@param item table
function M.accepted(client, item)
  if item.command then
    local params = { command = item.command.command, arguments = item.command.arguments }
    M.call(client, "request", "workspace/executeCommand", params, function() end)
  end
end

--- Ask the server what it is doing and why nothing was shown.
---@param client vim.lsp.Client
---@param on_result fun(result: table)
function M.describe(client, on_result)
  M.call(client, "request", "workspace/executeCommand", { command = "starfill.status" }, function(_, result)
    on_result(result or {})
  end)
end

--- Call a client's method: a method proper from 0.11 on, a bound function before.
---@param client vim.lsp.Client
---@param name string
function M.call(client, name, ...)
  if vim.fn.has("nvim-0.11") == 1 then
    return client[name](client, ...)
  end
  return client[name](...)
end

--- Stop the server; the engine stays warm.
function M.stop()
  for _, client in ipairs(vim.lsp.get_clients({ name = "starfill" })) do
    M.call(client, "stop")
  end
end

return M
