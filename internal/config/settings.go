package config

import (
	"net/url"
	"strings"
)

// Kind is the type of a setting's value. The help of a flag shows it.
type Kind string

// The kinds. KindPatterns, KindPaths, KindCommand and KindHook are lists.
const (
	KindText     Kind = "text"
	KindName     Kind = "name"
	KindChoice   Kind = "choice"
	KindBool     Kind = "bool"
	KindInt      Kind = "int"
	KindNumber   Kind = "number"
	KindSize     Kind = "size"
	KindDuration Kind = "duration"
	KindPercent  Kind = "count or percentage"
	KindPath     Kind = "path"
	KindPlace    Kind = "path or URL"
	KindURL      Kind = "URL"
	KindAddress  Kind = "host:port"
	KindPatterns Kind = "pattern"
	KindPaths    Kind = "paths"
	KindCommand  Kind = "command"
	KindHook     Kind = "command or URL"
)

// Scope is the set of commands that have a setting as a flag.
type Scope string

// The scopes.
const (
	ScopeFile  Scope = "file"  // none: only the file has it
	ScopeAll   Scope = "all"   // every command
	ScopeSync  Scope = "sync"  // sync, watch, plan and every command that syncs
	ScopeWatch Scope = "watch" // only watch
)

// Setting is one row of the table of settings. The flags, the variables, the
// keys of the file, the help and the sample file are generated from it.
type Setting struct {
	// Name is the flag without its dashes; empty for ScopeFile.
	Name string
	// Key is the place in the file, such as api.url or
	// syncs[].batch.documents. The file's defaults block can hold the settings
	// of a sync too. A flag applies to every sync of the run.
	Key string
	// Usage is the text for the flag's help and the sample file.
	Usage string
	// Default is the default in the notation of the file; empty for none.
	Default string
	Kind    Kind
	// Choices are the allowed values of a KindChoice.
	Choices []string
	Scope   Scope

	example   string // for the sample and for messages, where there is no Default
	positive  bool   // zero is an error
	off       bool   // zero means no limit, and "off" means zero
	bucket    bool   // only for buckets; the sample, with a directory as its root, leaves it out
	noDefault bool   // of one sync only, so not allowed in the defaults block
	// checkURL checks a KindURL and returns the text to keep; nil accepts every
	// absolute URL without credentials.
	checkURL func(u *url.URL, text string) (string, error)
	// config or sync returns a pointer to the setting's field.
	config func(*Config) any
	sync   func(*Sync) any
}

// Repeatable reports whether a command line may have the flag several times.
func (s Setting) Repeatable() bool {
	return s.Kind == KindPatterns || s.Kind == KindPaths
}

// PerSync reports whether each sync has its own value.
func (s Setting) PerSync() bool { return s.sync != nil }

// Env returns the name of the environment variable, or "" if there is none.
func (s Setting) Env() string {
	if s.Name == "" {
		return ""
	}
	return envName(s.Name)
}

func envName(flag string) string {
	return "KBSYNC_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Settings returns the table of all settings, in the order of the sample file.
// The caller owns the slice.
//
//nolint:funlen // a table: one row per setting
func Settings() []Setting {
	return []Setting{
		{
			Name: "api-url", Key: "api.url", Kind: KindURL, Scope: ScopeAll, Default: "https://api.reply.cx",
			Usage:    "Address of the ReplyCX API.",
			checkURL: checkAPI,
			config:   func(c *Config) any { return &c.API.URL },
		},
		{
			Name: "token-file", Key: "api.token_file", Kind: KindPath, Scope: ScopeAll, example: "/run/secrets/replycx",
			Usage:  "File with the API token. kbsync reads it again when it changes. The variable REPLYCX_TOKEN overrides it.",
			config: func(c *Config) any { return &c.API.TokenFile },
		},
		{
			Key: "api.token_command", Kind: KindCommand, Scope: ScopeFile, example: "[pass, show, replycx]",
			Usage:  "Program and arguments that print the API token. kbsync runs it without a shell, and again when the API refuses the token or the config is reloaded.",
			config: func(c *Config) any { return &c.API.TokenCommand },
		},
		{
			Name: "account-id", Key: "api.account_id", Kind: KindInt, Scope: ScopeAll, example: "51", positive: true,
			Usage:  "Account id, for operations that need one. The default is the account of the token.",
			config: func(c *Config) any { return &c.API.AccountID },
		},
		{
			Name: "rate", Key: "api.rate", Kind: KindNumber, Scope: ScopeAll, Default: "5", off: true,
			Usage:  "Maximum requests per second; off for no limit.",
			config: func(c *Config) any { return &c.API.Rate },
		},
		{
			Name: "ca-cert", Key: "api.ca_cert", Kind: KindPath, Scope: ScopeAll, example: "/etc/ssl/company.pem",
			Usage:  "PEM file with certificate authorities to trust in addition to the system's.",
			config: func(c *Config) any { return &c.API.CACert },
		},
		{
			Name: "allow-insecure", Key: "api.allow_insecure", Kind: KindBool, Scope: ScopeAll, Default: "false",
			Usage:  "Allow an http:// API address on another machine, such as an emulator in another container. The token is then sent unencrypted.",
			config: func(c *Config) any { return &c.API.AllowInsecure },
		},
		{
			Name: "state", Key: "state", Kind: KindPlace, Scope: ScopeAll, example: "kbsync.db",
			Usage:  "File of the inventory of uploads, or the URL of a PostgreSQL database, such as postgres://user@host/database. The default is kbsync.db beside the config file, or in the user's state directory if there is no config file.",
			config: func(c *Config) any { return &c.State },
		},
		{
			Name: "log-level", Key: "log.level", Kind: KindChoice, Scope: ScopeAll, Default: "info",
			Choices: []string{"debug", "info", "warn", "error"},
			Usage:   "Lowest level to log: debug, info, warn or error.",
			config:  func(c *Config) any { return &c.Log.Level },
		},
		{
			Name: "log-format", Key: "log.format", Kind: KindChoice, Scope: ScopeAll, Default: "text",
			Choices: []string{"text", "json"},
			Usage:   "Format of the log: text or json.",
			config:  func(c *Config) any { return &c.Log.Format },
		},
		{
			Name: "listen", Key: "listen", Kind: KindAddress, Scope: ScopeWatch, example: "127.0.0.1:9090",
			Usage:  "Address of the status page, metrics and health checks. Without a host it is the loopback.",
			config: func(c *Config) any { return &c.Listen },
		},
		{
			Name: "listen-token-file", Key: "listen_token_file", Kind: KindPath, Scope: ScopeWatch, example: "/run/secrets/kbsync-listen",
			Usage:  "File with the token for the status page and its triggers. By default, watch writes a token to a file beside the state, with .listen-token after its name.",
			config: func(c *Config) any { return &c.ListenTokenFile },
		},
		{
			Name: "listen-read", Key: "listen_read", Kind: KindChoice, Scope: ScopeWatch, Default: "token",
			Choices: []string{"token", "loopback"},
			Usage:   "Who can read the status page: token (requests with the token), or loopback (also every user and every proxy of this machine).",
			config:  func(c *Config) any { return &c.ListenRead },
		},
		{
			Name: "period", Key: "period", Kind: KindDuration, Scope: ScopeWatch, Default: "off", off: true, example: "30s",
			Usage:  "Interval between passes of a watch that ignores file events, in place of --rescan; off watches by events.",
			config: func(c *Config) any { return &c.Period },
		},
		{
			Name: "touch-file", Key: "touch_file", Kind: KindPath, Scope: ScopeSync, example: "/run/kbsync/synced",
			Usage:  "File to touch after each successful pass.",
			config: func(c *Config) any { return &c.TouchFile },
		},
		{
			Name: "error-file", Key: "error_file", Kind: KindPath, Scope: ScopeSync, example: "/run/kbsync/error.json",
			Usage:  "File to write the current errors to, as JSON. kbsync removes it when there are none.",
			config: func(c *Config) any { return &c.ErrorFile },
		},
		{
			Name: "metrics-file", Key: "metrics_file", Kind: KindPath, Scope: ScopeSync, example: "/var/lib/node_exporter/kbsync.prom",
			Usage:  "File to write the metrics to after each pass, for the textfile collector of the Prometheus node_exporter.",
			config: func(c *Config) any { return &c.MetricsFile },
		},
		{
			Name: "shutdown-grace", Key: "shutdown_grace", Kind: KindDuration, Scope: ScopeSync, Default: "20s",
			Usage:  "Time that a stopping command waits for the answers to requests that it has sent.",
			config: func(c *Config) any { return &c.ShutdownGrace },
		},
		{
			Name: "lock-timeout", Key: "lock_timeout", Kind: KindDuration, Scope: ScopeSync, Default: "0s", example: "30s",
			Usage:  "Time to wait for a sync that another process is running.",
			config: func(c *Config) any { return &c.LockTimeout },
		},
		{
			Name: "transfers", Key: "transfers", Kind: KindInt, Scope: ScopeSync, Default: "4", positive: true,
			Usage:  "Number of parallel uploads.",
			config: func(c *Config) any { return &c.Transfers },
		},
		{
			Name: "checkers", Key: "checkers", Kind: KindInt, Scope: ScopeSync, Default: "4", positive: true,
			Usage:  "Number of files to hash in parallel.",
			config: func(c *Config) any { return &c.Checkers },
		},
		{
			Name: "bwlimit", Key: "bwlimit", Kind: KindSize, Scope: ScopeSync, Default: "off", off: true, example: "1MiB",
			Usage:  "Maximum bytes per second of all uploads together; off for no limit.",
			config: func(c *Config) any { return &c.BWLimit },
		},
		{
			Name: "max-transfer", Key: "max_transfer", Kind: KindSize, Scope: ScopeSync, Default: "off", off: true, example: "1GiB",
			Usage:  "Maximum bytes to upload in one pass, which then stops cleanly; off for no limit.",
			config: func(c *Config) any { return &c.MaxTransfer },
		},
		{
			Name: "max-duration", Key: "max_duration", Kind: KindDuration, Scope: ScopeSync, Default: "off", off: true, example: "1h",
			Usage:  "Maximum duration of a pass, which then stops cleanly; off for no limit.",
			config: func(c *Config) any { return &c.MaxDuration },
		},
		{
			Name: "poll-min", Key: "poll.min", Kind: KindDuration, Scope: ScopeSync, Default: "350ms", positive: true,
			Usage:  "Shortest interval between status requests for a source. The interval grows with the time since the upload.",
			config: func(c *Config) any { return &c.Poll.Min },
		},
		{
			Name: "poll-max", Key: "poll.max", Kind: KindDuration, Scope: ScopeSync, Default: "60s", positive: true,
			Usage:  "Longest interval between status requests for a source.",
			config: func(c *Config) any { return &c.Poll.Max },
		},
		{
			Name: "train-timeout", Key: "train_timeout", Kind: KindDuration, Scope: ScopeSync, Default: "2h", off: true,
			Usage:  "Time after which a source that is still in training counts as stuck; off for no limit.",
			config: func(c *Config) any { return &c.TrainTimeout },
		},
		{
			Key: "syncs[].name", Kind: KindName, Scope: ScopeFile, example: "handbook", noDefault: true,
			Usage: "Name of the sync, for commands and the inventory. Do not change it later.",
			sync:  func(s *Sync) any { return &s.Name },
		},
		{
			Key: "syncs[].root", Kind: KindPlace, Scope: ScopeFile, example: "./docs", noDefault: true,
			Usage: "Directory to watch. A relative path is relative to this file.",
			sync:  func(s *Sync) any { return &s.Root },
		},
		{
			Name: "knowledge-base", Key: "syncs[].knowledge_base", Kind: KindInt, Scope: ScopeSync, example: "876", positive: true,
			Usage: "Id of the knowledge base to upload to.",
			sync:  func(s *Sync) any { return &s.KnowledgeBase },
		},
		{
			Name: "include", Key: "syncs[].include", Kind: KindPatterns, Scope: ScopeSync, example: `["**/*.md", "**/*.pdf"]`,
			Usage: "Patterns of the documents to upload. Without a pattern, kbsync uploads the usual document types.",
			sync:  func(s *Sync) any { return &s.Include },
		},
		{
			Name: "exclude", Key: "syncs[].exclude", Kind: KindPatterns, Scope: ScopeSync, example: `["drafts/**"]`,
			Usage: "Patterns of the documents to exclude.",
			sync:  func(s *Sync) any { return &s.Exclude },
		},
		{
			Name: "filter-from", Key: "syncs[].filter_from", Kind: KindPaths, Scope: ScopeSync, example: "filters.txt",
			Usage: "File with filter rules, one per line.",
			sync:  func(s *Sync) any { return &s.FilterFrom },
		},
		{
			Name: "max-size", Key: "syncs[].max_size", Kind: KindSize, Scope: ScopeSync, Default: "100MiB", off: true,
			Usage: "Size above which kbsync skips a document; off for no limit.",
			sync:  func(s *Sync) any { return &s.MaxSize },
		},
		{
			Name: "batch-documents", Key: "syncs[].batch.documents", Kind: KindInt, Scope: ScopeSync, Default: "20", positive: true,
			Usage: "Maximum number of documents in one request.",
			sync:  func(s *Sync) any { return &s.Batch.Documents },
		},
		{
			Name: "batch-bytes", Key: "syncs[].batch.bytes", Kind: KindSize, Scope: ScopeSync, Default: "32MiB", positive: true,
			Usage: "Maximum bytes in one request. A larger document is sent alone.",
			sync:  func(s *Sync) any { return &s.Batch.Bytes },
		},
		{
			Name: "batch-wait", Key: "syncs[].batch.wait", Kind: KindDuration, Scope: ScopeSync, Default: "2s",
			Usage: "Time that watch waits for more documents before it sends a request.",
			sync:  func(s *Sync) any { return &s.Batch.Wait },
		},
		{
			Name: "rescan", Key: "syncs[].rescan", Kind: KindDuration, Scope: ScopeSync, Default: "10m", off: true,
			Usage: "Interval between full listings by watch; off for none.",
			sync:  func(s *Sync) any { return &s.Rescan },
		},
		{
			Name: "settle", Key: "syncs[].settle", Kind: KindDuration, Scope: ScopeSync, Default: "2s",
			Usage: "Time without a change after which a file counts as completely written.",
			sync:  func(s *Sync) any { return &s.Settle },
		},
		{
			Name: "min-reupload-interval", Key: "syncs[].min_reupload_interval", Kind: KindDuration, Scope: ScopeWatch, Default: "1m", off: true,
			Usage: "Minimum time between two uploads of a document by watch, because every uploaded version is permanent; off for none.",
			sync:  func(s *Sync) any { return &s.MinReupload },
		},
		{
			Name: "on-uncertain", Key: "syncs[].on_uncertain", Kind: KindChoice, Scope: ScopeSync, Default: Resend,
			Choices: []string{Resend, Hold},
			Usage:   "Action for documents whose answer was lost: resend (once) or hold.",
			sync:    func(s *Sync) any { return &s.OnUncertain },
		},
		{
			Name: "on-refused", Key: "syncs[].on_refused", Kind: KindChoice, Scope: ScopeSync, Default: Split,
			Choices: []string{Split, Hold},
			Usage:   "Action for a refused request: split (to find the document at fault) or hold.",
			sync:    func(s *Sync) any { return &s.OnRefused },
		},
		{
			Name: "duplicates", Key: "syncs[].duplicates", Kind: KindChoice, Scope: ScopeSync, Default: Share,
			Choices: []string{Share, Each},
			Usage:   "Sources of documents with the same content: share (one source) or each (one per document).",
			sync:    func(s *Sync) any { return &s.Duplicates },
		},
		{
			Name: "on-rename", Key: "syncs[].on_rename", Kind: KindChoice, Scope: ScopeSync, Default: Share,
			Choices: []string{Share, Upload},
			Usage:   "Action for a renamed document: share (keep its source) or upload (under the new name).",
			sync:    func(s *Sync) any { return &s.OnRename },
		},
		{
			Name: "upload-name", Key: "syncs[].upload_name", Kind: KindChoice, Scope: ScopeSync, Default: Flat,
			Choices: []string{Flat, Key, Base},
			Usage:   "Name of a document in the knowledge base: flat (a__b.md), key (a/b.md) or base (b.md).",
			sync:    func(s *Sync) any { return &s.UploadName },
		},
		{
			Name: "send-as", Key: "syncs[].send_as", Kind: KindChoice, Scope: ScopeSync, Default: File,
			Choices: []string{File, Text},
			Usage:   "Form of an upload in a text format: file or text.",
			sync:    func(s *Sync) any { return &s.SendAs },
		},
		{
			Name: "preflight", Key: "syncs[].preflight", Kind: KindChoice, Scope: ScopeSync, Default: Block,
			Choices: []string{Off, Warn, Block},
			Usage:   "Check of each document before its upload: off, warn, or block (documents that can never train are not sent).",
			sync:    func(s *Sync) any { return &s.Preflight },
		},
		{
			Name: "secrets", Key: "syncs[].secrets", Kind: KindChoice, Scope: ScopeSync, Default: Warn,
			Choices: []string{Off, Warn, Block},
			Usage:   "Action for documents with a key or token in them: off, warn (JSON with a private key is not sent) or block.",
			sync:    func(s *Sync) any { return &s.Secrets },
		},
		{
			Name: "transcode", Key: "syncs[].transcode", Kind: KindChoice, Scope: ScopeSync, Default: Off,
			Choices: []string{Off, On},
			Usage:   "Conversion of texts of up to 1 MiB to UTF-8 for their upload as files: off or on. Text fields always are UTF-8.",
			sync:    func(s *Sync) any { return &s.Transcode },
		},
		{
			Name: "resaved", Key: "syncs[].resaved", Kind: KindChoice, Scope: ScopeSync, Default: Skip,
			Choices: []string{Upload, Skip, Warn},
			Usage:   "Action for an office document or PDF that was saved again with only its metadata changed: upload, skip (keep its source) or warn (upload it with a warning).",
			sync:    func(s *Sync) any { return &s.Resaved },
		},
		{
			Name: "max-delete", Key: "syncs[].max_delete", Kind: KindPercent, Scope: ScopeSync, Default: "50%",
			Usage: "Removals in one scan above which the sync halts, as a number or a percentage; off for no limit. The default always allows 20.",
			sync:  func(s *Sync) any { return &s.MaxDelete },
		},
		{
			Name: "max-change", Key: "syncs[].max_change", Kind: KindPercent, Scope: ScopeSync, Default: "50%",
			Usage: "Changed documents in one scan above which the sync halts, as a number or a percentage; off for no limit. The default always allows 20.",
			sync:  func(s *Sync) any { return &s.MaxChange },
		},
		{
			Name: "max-uploads", Key: "syncs[].max_uploads", Kind: KindInt, Scope: ScopeSync, Default: "off", off: true, example: "500",
			Usage: "Uploads in one pass above which the sync halts; off for no limit.",
			sync:  func(s *Sync) any { return &s.MaxUploads },
		},
		{
			Name: "allow-empty", Key: "syncs[].allow_empty", Kind: KindBool, Scope: ScopeSync, Default: "false",
			Usage: "Continue when a root or a directory that had documents is empty.",
			sync:  func(s *Sync) any { return &s.AllowEmpty },
		},
		{
			Name: "copy-links", Key: "syncs[].copy_links", Kind: KindBool, Scope: ScopeSync, Default: "false",
			Usage: "Follow symbolic links that stay inside the root.",
			sync:  func(s *Sync) any { return &s.CopyLinks },
		},
		{
			Key: "syncs[].heartbeat_url", Kind: KindURL, Scope: ScopeFile, example: "https://hc-ping.example/3f0c",
			Usage:    "URL to GET after each successful pass.",
			checkURL: checkHeartbeat,
			sync:     func(s *Sync) any { return &s.HeartbeatURL },
		},
		{
			Key: "syncs[].hooks.on_success", Kind: KindHook, Scope: ScopeFile, example: "[notify-team, handbook]",
			Usage: "Hook to call when all changes are uploaded and trained: a list of words, a line for the shell, or the URL of a webhook.",
			sync:  func(s *Sync) any { return &s.Hooks.OnSuccess },
		},
		{
			Key: "syncs[].hooks.on_failure", Kind: KindHook, Scope: ScopeFile, example: "https://hooks.example/kbsync",
			Usage: "Hook to call when documents failed or the sync is halted.",
			sync:  func(s *Sync) any { return &s.Hooks.OnFailure },
		},
		{
			Key: "syncs[].hooks.on_orphan", Kind: KindHook, Scope: ScopeFile, example: "./open-ticket.sh >>tickets.log",
			Usage: "Hook to call when an edit or a delete left sources that must be removed by hand.",
			sync:  func(s *Sync) any { return &s.Hooks.OnOrphan },
		},
		{
			Key: "syncs[].hooks.timeout", Kind: KindDuration, Scope: ScopeFile, Default: "30s", positive: true,
			Usage: "Time limit of a hook.",
			sync:  func(s *Sync) any { return &s.Hooks.Timeout },
		},
		{
			Name: "notifications", Key: "syncs[].notifications", Kind: KindURL, Scope: ScopeWatch, bucket: true, example: "awssqs://sqs.eu-west-1.amazonaws.com/123456789012/docs",
			Usage:    "URL of a subscription to the changes of a bucket, for watch: awssqs, gcppubsub, azuresb, kafka, rabbit or nats.",
			checkURL: checkSubscription,
			sync:     func(s *Sync) any { return &s.Notifications },
		},
	}
}
