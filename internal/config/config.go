// Package config turns a YAML file, the environment and command-line flags
// into one validated [Config].
//
// The package is pure: [Parse] reads no file, no variable and no clock. The
// caller passes the bytes of the file, the environment and the flags that the
// user set. The table that [Settings] returns defines every setting once: its
// flag, its environment variable, its key in the file, its default and its help
// text. A flag overrides the environment, the environment overrides the file,
// and the file overrides the default.
//
// Parse reports all mistakes at once, each as a [Problem] with its place and
// the remedy. It never guesses: unknown keys, unknown KBSYNC_ variables and
// duplicate keys are errors.
//
// The package does not check whether a root exists, the API accepts a token or
// a pattern matches a document.
package config

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Config is the complete, validated configuration of a command. Its paths are
// absolute if [Input.Dir] is.
type Config struct {
	// Path is the path of the config file as the user wrote it; empty without a file.
	Path string

	API API
	// State is the path of the SQLite file that holds the inventory, or the URL
	// of a PostgreSQL database without its password. It can be printed.
	State string
	// StatePassword is the password that the URL had; see [Config.OpenState].
	StatePassword Secret
	// LocalState is State if it is a file, else the default path of the file. It
	// is empty if there is no directory for one. The emulator's files are beside it.
	LocalState string
	// UserDir is the directory of kbsync in the user's state directory; empty if there is none.
	UserDir string
	Log     Log
	// Listen is the host:port of the status page, empty for none. The host is
	// never empty: Parse turns ":9090" into an address of the loopback.
	Listen string
	// ListenRead is "token" if reading the status page needs the token, or
	// "loopback" if requests from this machine read it without.
	ListenRead string
	// ListenTokenFile is the path of the file with the token of the status
	// page; empty for none.
	ListenTokenFile string
	// Period, if not zero, is the pause between two passes of a watch that
	// ignores events.
	Period time.Duration
	// TouchFile, ErrorFile and MetricsFile are the paths of the status files
	// that kbsync writes after a pass; empty for none.
	TouchFile   string
	ErrorFile   string
	MetricsFile string
	// ShutdownGrace is how long a stopping command waits for the answers of
	// sealed batches.
	ShutdownGrace time.Duration
	// LockTimeout is how long to wait for a sync that another process is
	// running; zero means not to wait.
	LockTimeout time.Duration
	// Transfers is the number of parallel uploads, Checkers the number of files
	// to hash in parallel. Both are at least one.
	Transfers int
	Checkers  int
	// BWLimit is the maximum number of bytes per second of all uploads
	// together. A pass stops cleanly after MaxTransfer bytes or MaxDuration.
	// Zero means no limit.
	BWLimit     Size
	MaxTransfer Size
	MaxDuration time.Duration
	Poll        Poll
	// TrainTimeout is how long a source may train before it counts as stuck;
	// zero means no limit.
	TrainTimeout time.Duration

	// Syncs are the syncs of the file in its order, then the syncs of ROOT
	// arguments.
	Syncs []Sync
	// Selected are the names of the syncs that [Input.Args] selects, in the
	// order of Syncs. Without arguments it has all of them.
	Selected []string

	// Warnings are settings that are valid but probably mistakes.
	Warnings []Problem

	configPath string // absolute
}

// API is the configuration of the client.
type API struct {
	// URL is the API's origin and, behind a gateway, a path prefix, without a
	// slash at its end. Its scheme is https. It may be http on the loopback,
	// and on other machines if AllowInsecure is set.
	URL string
	// AllowInsecure permits plain http to other machines.
	AllowInsecure bool
	// Token is the value of REPLYCX_TOKEN. It overrides TokenFile and
	// TokenCommand. At most one of those two is set. All three may be empty.
	Token Secret
	// TokenFile is the path of a file with the token.
	TokenFile string
	// TokenCommand is a program and its arguments. kbsync runs it without a
	// shell; its output is the token.
	TokenCommand []string
	// AccountID is the account for account-scoped operations; zero means the
	// account in the token.
	AccountID int64
	// Rate is the maximum number of requests per second; zero means no limit.
	Rate float64
	// CACert is the path of a PEM file with additional certificate authorities.
	CACert string
}

// Local reports whether the API is served on this machine, as an emulator is.
func (a API) Local() bool {
	u, err := url.Parse(a.URL)
	return err == nil && loopback(u.Hostname())
}

// Log is the configuration of the log.
type Log struct {
	Level  string // debug, info, warn or error
	Format string // text or json
}

// Poll is the range of intervals between status requests for one source.
// 0 < Min <= Max.
type Poll struct {
	Min, Max time.Duration
}

// Sync is a root, its knowledge base, and the rules of the synchronization.
type Sync struct {
	// Name is unique among the syncs, regardless of case, and valid as a part
	// of a file name.
	Name          string
	Root          Root
	KnowledgeBase int64

	// Include and Exclude are valid doublestar patterns. An empty Include means
	// the usual document types. FilterFrom are paths of filter files.
	Include    []string
	Exclude    []string
	FilterFrom []string
	// MaxSize is the maximum size of a document; zero means no limit.
	MaxSize Size

	Batch Batch
	// Rescan is the interval between full listings by watch. Zero means a full
	// listing only at the start and after lost events.
	Rescan time.Duration
	// Settle is the quiet time after which a file counts as completely written.
	Settle time.Duration
	// MinReupload is the minimum time between two uploads of a document by
	// watch.
	MinReupload time.Duration

	OnUncertain string // Resend or Hold
	OnRefused   string // Split or Hold
	Duplicates  string // Share or Each
	OnRename    string // Share or Upload
	UploadName  string // Flat, Key or Base
	SendAs      string // File or Text
	Preflight   string // Off, Warn or Block
	Secrets     string // Off, Warn or Block
	Transcode   string // Off or On
	Resaved     string // Upload, Skip or Warn

	// MaxDelete is the maximum number of removals in a scan, and MaxChange that
	// of changed documents; the sync halts above it.
	MaxDelete Limit
	MaxChange Limit
	// MaxUploads is the maximum number of uploads in a pass; the sync halts
	// above it. Zero means no limit.
	MaxUploads int
	// AllowEmpty lets an empty root, or an empty directory in it, remove all
	// known documents that were there.
	AllowEmpty bool
	// CopyLinks follows symbolic links that stay inside the root.
	CopyLinks bool
	// Notifications is the URL of a subscription to the events of a bucket.
	Notifications string

	// HeartbeatURL is the URL to GET after each successful pass; empty for none.
	HeartbeatURL string
	Hooks        Hooks
}

// Hooks are the calls for the events of a sync. Each is empty, the URL of a
// webhook, or a program and its arguments; see [WebhookURL].
type Hooks struct {
	OnSuccess []string
	OnFailure []string
	OnOrphan  []string
	Timeout   time.Duration // of one call; greater than zero
}

// WebhookURL returns the URL of a webhook, or "" for a hook that is a program or
// empty.
func WebhookURL(hook []string) string {
	if len(hook) == 1 && (strings.HasPrefix(hook[0], "https://") || strings.HasPrefix(hook[0], "http://")) {
		return hook[0]
	}
	return ""
}

// Batch limits one multipart request.
type Batch struct {
	Documents int           // at least one
	Bytes     Size          // at least one; a larger document is sent alone
	Wait      time.Duration // how long a batch waits for more documents
}

// The values of a sync's choices.
const (
	Resend = "resend"
	Hold   = "hold"
	Split  = "split"
	Share  = "share"
	Each   = "each"
	Upload = "upload"
	Skip   = "skip"
	Flat   = "flat"
	Key    = "key"
	Base   = "base"
	File   = "file"
	Text   = "text"
	Off    = "off"
	On     = "on"
	Warn   = "warn"
	Block  = "block"
)

// Sync returns the sync with a name, and whether there is one.
func (c *Config) Sync(name string) (Sync, bool) {
	i := slices.IndexFunc(c.Syncs, func(s Sync) bool { return s.Name == name })
	if i < 0 {
		return Sync{}, false
	}
	return c.Syncs[i], true
}

// Dir returns the directory of the config file; empty without a file.
func (c *Config) Dir() string {
	if c.configPath == "" {
		return ""
	}
	return filepath.Dir(c.configPath)
}

// Private returns the files of kbsync that it must never upload, even if they are
// in a root: the state, the config file, the token files, the status files and
// the filter files. A state in a database has no file.
func (c *Config) Private() []string {
	var out []string
	for _, p := range []string{c.StateFile(), c.configPath, c.API.TokenFile, c.ListenTokenFile, c.TouchFile, c.ErrorFile, c.MetricsFile} {
		if p != "" {
			out = append(out, p)
		}
	}
	for _, s := range c.Syncs {
		out = append(out, s.FilterFrom...)
	}
	return out
}

// StateFile returns the path of the state; empty if it is in a database.
func (c *Config) StateFile() string {
	if isDatabase(c.State) {
		return ""
	}
	return c.State
}

// Input is the input of [Parse].
type Input struct {
	// Path is the path of the config file as the user wrote it, and File its
	// bytes. An empty Path means no file.
	Path string
	File []byte
	// Dir is the absolute working directory, the base of a relative Path and of
	// relative paths in flags, arguments and variables.
	Dir string
	// Environ is the environment in the form of os.Environ. Parse ignores empty
	// variables.
	Environ []string
	// Flags holds the values of the flags that the user set, by name without
	// the dashes. A boolean flag has the value "true" or "false". Parse ignores
	// names that are not in the table.
	Flags map[string][]string
	// OtherFlags are the names of the program's other flags. Parse accepts their
	// variables and ignores the values.
	OtherFlags []string
	// Args are NAME and ROOT arguments. The name or the root of a sync in the
	// file selects it. Any other root becomes a new sync; see [AdHocName].
	Args []string
}

// Problem is one mistake or warning, and its place.
type Problem struct {
	// File, Line and Column are set for a mistake in the file. Line and Column
	// count from 1.
	File         string
	Line, Column int
	// Name is the key in the file (syncs[0].batch.bytes), the flag with its
	// dashes, or the environment variable. It may be empty.
	Name string
	// Text describes the mistake and the remedy.
	Text string
}

// String returns the problem as one line: place, name and text.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
		}
		b.WriteString(": ")
	}
	if p.Name != "" {
		b.WriteString(p.Name + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Errors are all mistakes that [Parse] found: first the mistakes in the file, in
// its order, then the others.
type Errors []Problem

// Error returns one line for each problem.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}
