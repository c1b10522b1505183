package watcher

import "io"

// FilterOptions of a Filter. The zero value takes the default document types and leaves out the default exclusions.
type FilterOptions struct {
	// Rules come first, in their order: those of --filter-from files, see ParseRules.
	Rules []Rule
	// Exclude are globs of documents to leave out.
	Exclude []string
	// Include are globs of documents to take. If there are any, nothing else is; if there are none, the default types are meant.
	Include []string
	// Own are keys of files of kbsync's own, see OwnKeys. They are left out whatever the rules say, together with what differs
	// from them only by an ending that starts with a dot or a hyphen.
	Own []string
	// MaxSize is the size in bytes above which a document is skipped; zero for none.
	MaxSize int64
}

// A Rule takes or leaves out the documents that its glob matches.
type Rule struct {
	Include bool
	Glob    string
	Place   string // where it stands, such as "filters.txt:3"
}

// ParseRules reads rules in rclone's syntax, one a line: "+ glob" takes, "- glob" leaves out, "!" forgets the rules before it,
// lines that start with # or ; and empty ones say nothing. The name is for messages.
func ParseRules(r io.Reader, name string) ([]Rule, error) { panic("later") }

// A Filter decides which keys of a root are documents. It is safe for use by several goroutines.
type Filter struct{}

// NewFilter checks the patterns. Its error is a *PatternError.
func NewFilter(opts FilterOptions) (*Filter, error) { panic("later") }

// A PatternError says what is wrong with a pattern, and what to write instead.
type PatternError struct {
	Place   string // such as "--include" or "filters.txt:3"
	Pattern string
	Problem string
}

func (e *PatternError) Error() string { return e.Place + ": pattern " + e.Pattern + ": " + e.Problem }

// OwnKeys returns the keys that files have on a directory root, for those that are inside it.
func OwnKeys(root string, paths ...string) []string { panic("later") }

// An Explanation says what a scan makes of a key.
type Explanation struct {
	Key    string
	Taken  bool   // it would be uploaded, once it has settled
	Listed bool   // it is a document of the root, be it a skipped one
	Reason string // in words, such as "excluded by the rule drafts/**"
	Rule   string // the text of the pattern that decides; empty where none does
	Place  string // where that stands, such as "drafts/.kbsyncignore:3"
}
