package config

import "strings"

// Kind is the type of a setting's value, as a flag's help names it.
type Kind string

// The kinds. Patterns, Paths and Words take several values.
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

// Scope says which commands take a setting as a flag.
type Scope string

// The scopes.
const (
	ScopeFile  Scope = "file"  // none: it stands in the file only
	ScopeAll   Scope = "all"   // every command
	ScopeSync  Scope = "sync"  // sync, watch, plan and what syncs as a part of its work
	ScopeWatch Scope = "watch" // watch alone
)

// Setting is one row of the table that flags, variables, file keys, help and
// the sample file are made of.
type Setting struct {
	// Name is the flag without its dashes; empty for ScopeFile.
	Name string
	// Key is the place in the file, such as api.url or
	// syncs[].batch.documents. A sync's setting may stand in the file's
	// defaults block as well, and as a flag it is for every sync of the run.
	Key string
	// Usage is a sentence for the flag's help and the sample file.
	Usage string
	// Default is the default as a user would write it; empty for none.
	Default string
	Kind    Kind
	// Choices are the allowed values of a KindChoice.
	Choices []string
	Scope   Scope

	example  string // for the sample and for messages, where Default is none
	positive bool   // zero is refused
	off      bool   // zero means no limit, and may be written "off"
	bucket   bool   // for buckets alone, so not in the sample, whose root is a directory
	config   func(*Config) any
	sync     func(*Sync) any
}

// Repeatable reports whether the flag may be given several times.
func (s Setting) Repeatable() bool {
	return s.Kind == KindPatterns || s.Kind == KindPaths
}

// Env is the environment variable's name; empty where there is none.
func (s Setting) Env() string {
	if s.Name == "" {
		return ""
	}
	return envName(s.Name)
}

func envName(flag string) string {
	return "KBSYNC_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Settings is the table of all settings, in the order of the sample file. The
// slice is the caller's own.
func Settings() []Setting {
	return []Setting{
		{
			Name: "api-url", Key: "api.url", Kind: KindURL, Scope: ScopeAll, Default: "https://api.reply.cx",
			Usage:  "Address of the ReplyCX API.",
			config: func(c *Config) any { return &c.API.URL },
		},
		{
			Name: "token-file", Key: "api.token_file", Kind: KindPath, Scope: ScopeAll, example: "/run/secrets/replycx",
			Usage:  "File that holds the API token; read again when it changes. The variable REPLYCX_TOKEN wins over it.",
			config: func(c *Config) any { return &c.API.TokenFile },
		},
		{
			Key: "api.token_command", Kind: KindCommand, Scope: ScopeFile, example: "[pass, show, replycx]",
			Usage:  "Program and arguments that print the API token, run without a shell.",
			config: func(c *Config) any { return &c.API.TokenCommand },
		},
		{
			Name: "account-id", Key: "api.account_id", Kind: KindInt, Scope: ScopeAll, example: "51", positive: true,
			Usage:  "Account, for the operations that name one; by default the token's own.",
			config: func(c *Config) any { return &c.API.AccountID },
		},
		{
			Name: "rate", Key: "api.rate", Kind: KindNumber, Scope: ScopeAll, Default: "5", off: true,
			Usage:  "Most requests a second; off for no limit.",
			config: func(c *Config) any { return &c.API.Rate },
		},
		{
			Name: "ca-cert", Key: "api.ca_cert", Kind: KindPath, Scope: ScopeAll, example: "/etc/ssl/company.pem",
			Usage:  "PEM file with certificate authorities to trust beside the system's.",
			config: func(c *Config) any { return &c.API.CACert },
		},
		{
			Name: "allow-insecure", Key: "api.allow_insecure", Kind: KindBool, Scope: ScopeAll, Default: "false",
			Usage:  "Allow an API address that begins with http:// and is not this machine's own, such as an emulator's in another container: the token then travels unencrypted.",
			config: func(c *Config) any { return &c.API.AllowInsecure },
		},
		{
			Name: "state", Key: "state", Kind: KindPlace, Scope: ScopeAll, example: "kbsync.db",
			Usage:  "The inventory of what was uploaded: kbsync.db beside the config file, or in the user's state directory without one.",
			config: func(c *Config) any { return &c.State },
		},
		{
			Name: "log-level", Key: "log.level", Kind: KindChoice, Scope: ScopeAll, Default: "info",
			Choices: []string{"debug", "info", "warn", "error"},
			Usage:   "Least important messages to log: debug, info, warn or error.",
			config:  func(c *Config) any { return &c.Log.Level },
		},
		{
			Name: "log-format", Key: "log.format", Kind: KindChoice, Scope: ScopeAll, Default: "text",
			Choices: []string{"text", "json"},
			Usage:   "Form of the log: text or json.",
			config:  func(c *Config) any { return &c.Log.Format },
		},
		{
			Name: "listen", Key: "listen", Kind: KindAddress, Scope: ScopeWatch, example: "127.0.0.1:9090",
			Usage:  "Address of the status page, metrics and health; the loopback where no host is given.",
			config: func(c *Config) any { return &c.Listen },
		},
		{
			Name: "listen-token-file", Key: "listen_token_file", Kind: KindPath, Scope: ScopeWatch, example: "/run/secrets/kbsync-listen",
			Usage:  "File that holds the token for the status page and the wishes; without one they are for this machine alone.",
			config: func(c *Config) any { return &c.ListenTokenFile },
		},
		{
			Name: "period", Key: "period", Kind: KindDuration, Scope: ScopeWatch, Default: "off", off: true, example: "30s",
			Usage:  "Time between two passes of a watch that takes no notice of file events, in place of --rescan; off to watch by events.",
			config: func(c *Config) any { return &c.Period },
		},
		{
			Name: "touch-file", Key: "touch_file", Kind: KindPath, Scope: ScopeSync, example: "/run/kbsync/synced",
			Usage:  "File to touch whenever a pass has ended well.",
			config: func(c *Config) any { return &c.TouchFile },
		},
		{
			Name: "error-file", Key: "error_file", Kind: KindPath, Scope: ScopeSync, example: "/run/kbsync/error.json",
			Usage:  "File that holds the reasons, as JSON, while something is wrong, and is removed when nothing is.",
			config: func(c *Config) any { return &c.ErrorFile },
		},
		{
			Name: "metrics-file", Key: "metrics_file", Kind: KindPath, Scope: ScopeSync, example: "/var/lib/node_exporter/kbsync.prom",
			Usage:  "File to write the metrics to after each pass, for the textfile collector of Prometheus' node_exporter.",
			config: func(c *Config) any { return &c.MetricsFile },
		},
		{
			Name: "shutdown-grace", Key: "shutdown_grace", Kind: KindDuration, Scope: ScopeSync, Default: "20s",
			Usage:  "Time that a stopping command waits for the answers of what it has sent.",
			config: func(c *Config) any { return &c.ShutdownGrace },
		},
		{
			Name: "lock-timeout", Key: "lock_timeout", Kind: KindDuration, Scope: ScopeSync, Default: "0s", example: "30s",
			Usage:  "Time to wait for a sync that another process works.",
			config: func(c *Config) any { return &c.LockTimeout },
		},
		{
			Name: "transfers", Key: "transfers", Kind: KindInt, Scope: ScopeSync, Default: "4", positive: true,
			Usage:  "Uploads at a time.",
			config: func(c *Config) any { return &c.Transfers },
		},
		{
			Name: "checkers", Key: "checkers", Kind: KindInt, Scope: ScopeSync, Default: "4", positive: true,
			Usage:  "Files hashed at a time.",
			config: func(c *Config) any { return &c.Checkers },
		},
		{
			Name: "bwlimit", Key: "bwlimit", Kind: KindSize, Scope: ScopeSync, Default: "off", off: true, example: "1MiB",
			Usage:  "Most bytes a second that all uploads together send; off for no limit.",
			config: func(c *Config) any { return &c.BWLimit },
		},
		{
			Name: "max-transfer", Key: "max_transfer", Kind: KindSize, Scope: ScopeSync, Default: "off", off: true, example: "1GiB",
			Usage:  "Bytes after which a pass stops cleanly; off for no limit.",
			config: func(c *Config) any { return &c.MaxTransfer },
		},
		{
			Name: "max-duration", Key: "max_duration", Kind: KindDuration, Scope: ScopeSync, Default: "off", off: true, example: "1h",
			Usage:  "Time after which a pass stops cleanly; off for no limit.",
			config: func(c *Config) any { return &c.MaxDuration },
		},
		{
			Name: "poll-min", Key: "poll.min", Kind: KindDuration, Scope: ScopeSync, Default: "2s", positive: true,
			Usage:  "First pause between two questions for a source's training status.",
			config: func(c *Config) any { return &c.Poll.Min },
		},
		{
			Name: "poll-max", Key: "poll.max", Kind: KindDuration, Scope: ScopeSync, Default: "60s", positive: true,
			Usage:  "Longest pause between two questions for a source's training status.",
			config: func(c *Config) any { return &c.Poll.Max },
		},
		{
			Name: "train-timeout", Key: "train_timeout", Kind: KindDuration, Scope: ScopeSync, Default: "2h", off: true,
			Usage:  "Time after which a source that still trains counts as stuck; off for none.",
			config: func(c *Config) any { return &c.TrainTimeout },
		},
		{
			Key: "syncs[].name", Kind: KindName, Scope: ScopeFile, example: "handbook",
			Usage: "Name of the sync, for commands and the inventory; keep it.",
			sync:  func(s *Sync) any { return &s.Name },
		},
		{
			Key: "syncs[].root", Kind: KindPlace, Scope: ScopeFile, example: "./docs",
			Usage: "Directory to watch; a relative one is relative to this file.",
			sync:  func(s *Sync) any { return &s.Root },
		},
		{
			Name: "knowledge-base", Key: "syncs[].knowledge_base", Kind: KindInt, Scope: ScopeSync, example: "876", positive: true,
			Usage: "Id of the knowledge base that the documents go to.",
			sync:  func(s *Sync) any { return &s.KnowledgeBase },
		},
		{
			Name: "include", Key: "syncs[].include", Kind: KindPatterns, Scope: ScopeSync, example: `["**/*.md", "**/*.pdf"]`,
			Usage: "Patterns of the documents to upload; without any, the usual document types.",
			sync:  func(s *Sync) any { return &s.Include },
		},
		{
			Name: "exclude", Key: "syncs[].exclude", Kind: KindPatterns, Scope: ScopeSync, example: `["drafts/**"]`,
			Usage: "Patterns of the documents to leave out.",
			sync:  func(s *Sync) any { return &s.Exclude },
		},
		{
			Name: "filter-from", Key: "syncs[].filter_from", Kind: KindPaths, Scope: ScopeSync, example: "filters.txt",
			Usage: "File of filter rules, one a line.",
			sync:  func(s *Sync) any { return &s.FilterFrom },
		},
		{
			Name: "max-size", Key: "syncs[].max_size", Kind: KindSize, Scope: ScopeSync, Default: "off", off: true, example: "50MiB",
			Usage: "Size above which a document is skipped; off for no limit.",
			sync:  func(s *Sync) any { return &s.MaxSize },
		},
		{
			Name: "batch-documents", Key: "syncs[].batch.documents", Kind: KindInt, Scope: ScopeSync, Default: "20", positive: true,
			Usage: "Most documents in one request.",
			sync:  func(s *Sync) any { return &s.Batch.Documents },
		},
		{
			Name: "batch-bytes", Key: "syncs[].batch.bytes", Kind: KindSize, Scope: ScopeSync, Default: "32MiB", positive: true,
			Usage: "Most bytes in one request; a larger document goes alone.",
			sync:  func(s *Sync) any { return &s.Batch.Bytes },
		},
		{
			Name: "batch-wait", Key: "syncs[].batch.wait", Kind: KindDuration, Scope: ScopeSync, Default: "2s",
			Usage: "Time that a request waits for more documents while watching.",
			sync:  func(s *Sync) any { return &s.Batch.Wait },
		},
		{
			Name: "rescan", Key: "syncs[].rescan", Kind: KindDuration, Scope: ScopeSync, Default: "10m", off: true,
			Usage: "Time between two full listings while watching; off for none.",
			sync:  func(s *Sync) any { return &s.Rescan },
		},
		{
			Name: "settle", Key: "syncs[].settle", Kind: KindDuration, Scope: ScopeSync, Default: "2s",
			Usage: "Quiet time after which a file counts as written.",
			sync:  func(s *Sync) any { return &s.Settle },
		},
		{
			Name: "min-reupload-interval", Key: "syncs[].min_reupload_interval", Kind: KindDuration, Scope: ScopeWatch, Default: "1m", off: true,
			Usage: "Time that a changed document waits after its last upload while watching, for each version stays for good; off for none.",
			sync:  func(s *Sync) any { return &s.MinReupload },
		},
		{
			Name: "on-uncertain", Key: "syncs[].on_uncertain", Kind: KindChoice, Scope: ScopeSync, Default: Resend,
			Choices: []string{Resend, Hold},
			Usage:   "What becomes of documents whose answer was lost: resend (once) or hold.",
			sync:    func(s *Sync) any { return &s.OnUncertain },
		},
		{
			Name: "on-refused", Key: "syncs[].on_refused", Kind: KindChoice, Scope: ScopeSync, Default: Split,
			Choices: []string{Split, Hold},
			Usage:   "What becomes of a refused request: split it to find the document at fault, or hold.",
			sync:    func(s *Sync) any { return &s.OnRefused },
		},
		{
			Name: "duplicates", Key: "syncs[].duplicates", Kind: KindChoice, Scope: ScopeSync, Default: Share,
			Choices: []string{Share, Each},
			Usage:   "Documents of the same content: share one source, or each has its own.",
			sync:    func(s *Sync) any { return &s.Duplicates },
		},
		{
			Name: "on-rename", Key: "syncs[].on_rename", Kind: KindChoice, Scope: ScopeSync, Default: Share,
			Choices: []string{Share, Upload},
			Usage:   "A renamed document: share the source it has, or upload it under its new name.",
			sync:    func(s *Sync) any { return &s.OnRename },
		},
		{
			Name: "upload-name", Key: "syncs[].upload_name", Kind: KindChoice, Scope: ScopeSync, Default: Flat,
			Choices: []string{Flat, Key, Base},
			Usage:   "A document's name in the knowledge base: flat (a__b.md), key (a/b.md) or base (b.md).",
			sync:    func(s *Sync) any { return &s.UploadName },
		},
		{
			Name: "send-as", Key: "syncs[].send_as", Kind: KindChoice, Scope: ScopeSync, Default: File,
			Choices: []string{File, Text},
			Usage:   "How text formats are sent: as a file or as text.",
			sync:    func(s *Sync) any { return &s.SendAs },
		},
		{
			Name: "max-delete", Key: "syncs[].max_delete", Kind: KindPercent, Scope: ScopeSync, Default: "50%",
			Usage: "Removals in one pass, a number or a percentage, above which the sync halts; off for no limit.",
			sync:  func(s *Sync) any { return &s.MaxDelete },
		},
		{
			Name: "max-uploads", Key: "syncs[].max_uploads", Kind: KindInt, Scope: ScopeSync, Default: "off", off: true, example: "500",
			Usage: "Uploads in one pass above which the sync halts; off for no limit.",
			sync:  func(s *Sync) any { return &s.MaxUploads },
		},
		{
			Name: "allow-empty", Key: "syncs[].allow_empty", Kind: KindBool, Scope: ScopeSync, Default: "false",
			Usage: "Go on when a root lists nothing where documents were known.",
			sync:  func(s *Sync) any { return &s.AllowEmpty },
		},
		{
			Name: "copy-links", Key: "syncs[].copy_links", Kind: KindBool, Scope: ScopeSync, Default: "false",
			Usage: "Follow symbolic links that stay inside the root.",
			sync:  func(s *Sync) any { return &s.CopyLinks },
		},
		{
			Key: "syncs[].heartbeat_url", Kind: KindURL, Scope: ScopeFile, example: "https://hc-ping.example/3f0c",
			Usage: "Address to GET after each pass that ended well.",
			sync:  func(s *Sync) any { return &s.HeartbeatURL },
		},
		{
			Key: "syncs[].hooks.on_success", Kind: KindHook, Scope: ScopeFile, example: "[notify-team, handbook]",
			Usage: "Called when everything that changed is in the knowledge base and trained: a list of words, a shell's line, or a webhook's URL.",
			sync:  func(s *Sync) any { return &s.Hooks.OnSuccess },
		},
		{
			Key: "syncs[].hooks.on_failure", Kind: KindHook, Scope: ScopeFile, example: "https://hooks.example/kbsync",
			Usage: "Called when documents failed, or the sync is halted.",
			sync:  func(s *Sync) any { return &s.Hooks.OnFailure },
		},
		{
			Key: "syncs[].hooks.on_orphan", Kind: KindHook, Scope: ScopeFile, example: "./open-ticket.sh >>tickets.log",
			Usage: "Called when sources were left behind that a person has to remove.",
			sync:  func(s *Sync) any { return &s.Hooks.OnOrphan },
		},
		{
			Key: "syncs[].hooks.timeout", Kind: KindDuration, Scope: ScopeFile, Default: "30s", positive: true,
			Usage: "Time that a hook may take.",
			sync:  func(s *Sync) any { return &s.Hooks.Timeout },
		},
		{
			Name: "notifications", Key: "syncs[].notifications", Kind: KindURL, Scope: ScopeWatch, bucket: true, example: "awssqs://sqs.eu-west-1.amazonaws.com/123456789012/docs",
			Usage: "Subscription that tells of changes in a bucket while watching, as a URL: awssqs, gcppubsub, azuresb, kafka, rabbit or nats.",
			sync:  func(s *Sync) any { return &s.Notifications },
		},
	}
}
