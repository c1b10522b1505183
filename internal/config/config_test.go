package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// workDir is an absolute path on every system.
func workDir(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs("/work")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

const minimal = `
syncs:
  - name: handbook
    root: docs
    knowledge_base: 876
`

func parse(t *testing.T, in Input) *Config {
	t.Helper()
	c, err := Parse(in)
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return c
}

// mistakes returns the lines of Parse's error.
func mistakes(t *testing.T, in Input) []string {
	t.Helper()
	c, err := Parse(in)
	if err == nil {
		return nil
	}
	list, ok := errors.AsType[Errors](err)
	if !ok || len(list) == 0 || c != nil {
		t.Fatalf("Parse = %v, %T: %v; want no Config and Errors", c, err, err)
	}
	return strings.Split(list.Error(), "\n")
}

func TestMinimalFileHasDefaults(t *testing.T) {
	dir := workDir(t)
	c := parse(t, Input{Path: "conf/kbsync.yaml", File: []byte(minimal), Dir: dir})
	want := &Config{
		Path:          "conf/kbsync.yaml",
		API:           API{URL: "https://api.reply.cx", Rate: 5},
		State:         filepath.Join(dir, "conf", "kbsync.db"),
		LocalState:    filepath.Join(dir, "conf", "kbsync.db"),
		Log:           Log{Level: "info", Format: "text"},
		ListenRead:    "token",
		ShutdownGrace: 20 * time.Second,
		Transfers:     4,
		Checkers:      4,
		Poll:          Poll{Min: 350 * time.Millisecond, Max: time.Minute},
		TrainTimeout:  2 * time.Hour,
		Syncs: []Sync{{
			Name:          "handbook",
			Root:          Root{Dir: filepath.Join(dir, "conf", "docs")},
			KnowledgeBase: 876,
			Batch:         Batch{Documents: 20, Bytes: 32 << 20, Wait: 2 * time.Second},
			Rescan:        10 * time.Minute,
			Settle:        2 * time.Second,
			MinReupload:   time.Minute,
			OnUncertain:   Resend,
			OnRefused:     Split,
			Duplicates:    Share,
			OnRename:      Share,
			UploadName:    Flat,
			SendAs:        File,
			Preflight:     Block,
			Secrets:       Warn,
			Transcode:     Off,
			Resaved:       Skip,
			MaxSize:       100 << 20,
			MaxDelete:     Limit{Percent: 50, ByPercent: true, Always: 20},
			MaxChange:     Limit{Percent: 50, ByPercent: true, Always: 20},
			Hooks:         Hooks{Timeout: 30 * time.Second},
		}},
		Selected:   []string{"handbook"},
		configPath: filepath.Join(dir, "conf", "kbsync.yaml"),
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got\n%+v\nwant\n%+v", c, want)
	}
}

func TestPlainHTTPNeedsAllowInsecure(t *testing.T) {
	in := Input{Path: "kbsync.yaml", File: []byte("api: {url: 'http://emulator:8080', allow_insecure: true}\n" + minimal), Dir: workDir(t)}
	if c := parse(t, in); c.API.URL != "http://emulator:8080" || !c.API.AllowInsecure {
		t.Errorf("got %+v", c.API)
	}
	in.File = []byte(minimal)
	in.Flags = map[string][]string{"api-url": {"http://emulator:8080"}}
	if got := mistakes(t, in); len(got) != 1 || !strings.Contains(got[0], "--api-url") {
		t.Errorf("got %q", got)
	}
	in.Flags["allow-insecure"] = []string{"true"}
	parse(t, in)
}

// everything sets every key of the file to a value other than its default.
const everything = `
api:
  url: https://gateway.example/replycx/
  token_file: secrets/token
  account_id: 51
  rate: 2.5
  ca_cert: ca.pem
state: var/state.db
log: {level: debug, format: json}
listen: :9090
listen_token_file: secrets/listen
listen_read: loopback
period: 30s
touch_file: run/touch
error_file: run/error.json
metrics_file: run/kbsync.prom
shutdown_grace: 1m
lock_timeout: 5s
transfers: 8
checkers: 2
bwlimit: 1MiB
max_transfer: 1GB
max_duration: 1h30m
poll: {min: 1s, max: 5m}
train_timeout: 1d
defaults:
  settle: 7s
  batch: {documents: 5}
  exclude: ["drafts/**"]
syncs:
  - name: a
    root: docs
    knowledge_base: 1
    include: ["**/*.md", "**/*.pdf"]
    filter_from: filters.txt
    max_size: 50MiB
    batch: {bytes: 1MB, wait: 0s}
    rescan: off
    min_reupload_interval: 5m
    heartbeat_url: https://hc.example/1
    hooks: {on_success: [notify, "a b"], on_failure: "https://hooks.example/x", on_orphan: "mail -s kbsync ops <&0", timeout: 5s}
    on_uncertain: hold
    on_refused: hold
    duplicates: each
    on_rename: upload
    upload_name: base
    send_as: text
    preflight: warn
    secrets: block
    transcode: on
    resaved: warn
    max_delete: 10
    max_change: 12.5%
    max_uploads: 500
    allow_empty: true
    copy_links: true
  - name: b
    root: file:///srv/files
    knowledge_base: 2
    exclude: []
    settle: 1s
    min_reupload_interval: off
    max_delete: off
`

func TestEveryKeyOfTheFile(t *testing.T) {
	dir := workDir(t)
	c := parse(t, Input{Path: "kbsync.yaml", File: []byte(everything), Dir: dir})
	if want := (API{
		URL: "https://gateway.example/replycx", TokenFile: filepath.Join(dir, "secrets", "token"),
		AccountID: 51, Rate: 2.5, CACert: filepath.Join(dir, "ca.pem"),
	}); !reflect.DeepEqual(c.API, want) {
		t.Errorf("API = %+v, want %+v", c.API, want)
	}
	got := []any{
		c.State, c.Log, c.Listen, c.ListenTokenFile, c.ListenRead, c.Period, c.TouchFile, c.ErrorFile, c.MetricsFile, c.ShutdownGrace, c.LockTimeout, c.Transfers, c.Checkers,
		c.BWLimit, c.MaxTransfer, c.MaxDuration, c.Poll, c.TrainTimeout,
	}
	want := []any{
		filepath.Join(dir, "var", "state.db"), Log{"debug", "json"}, "127.0.0.1:9090", filepath.Join(dir, "secrets", "listen"), "loopback", 30 * time.Second,
		filepath.Join(dir, "run", "touch"), filepath.Join(dir, "run", "error.json"), filepath.Join(dir, "run", "kbsync.prom"), time.Minute, 5 * time.Second, 8, 2,
		Size(1 << 20), Size(1e9), 90 * time.Minute, Poll{time.Second, 5 * time.Minute}, 24 * time.Hour,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	b := Root{Dir: filepath.FromSlash("/srv/files")}
	if filepath.Separator == '\\' {
		b.Dir = filepath.Join(dir, "srv", "files")
	}
	syncs := []Sync{
		{
			Name: "a", Root: Root{Dir: filepath.Join(dir, "docs")}, KnowledgeBase: 1,
			Include: []string{"**/*.md", "**/*.pdf"}, Exclude: []string{"drafts/**"}, FilterFrom: []string{filepath.Join(dir, "filters.txt")},
			MaxSize: 50 << 20, Batch: Batch{Documents: 5, Bytes: 1e6}, Settle: 7 * time.Second,
			OnUncertain: Hold, OnRefused: Hold, Duplicates: Each, OnRename: Upload, UploadName: Base, SendAs: Text, Preflight: Warn, Secrets: Block, Transcode: On, Resaved: Warn,
			MaxDelete: Limit{Count: 10}, MaxChange: Limit{Percent: 12.5, ByPercent: true}, MaxUploads: 500, AllowEmpty: true, CopyLinks: true, MinReupload: 5 * time.Minute, HeartbeatURL: "https://hc.example/1",
			Hooks: Hooks{
				OnSuccess: []string{"notify", "a b"}, OnFailure: []string{"https://hooks.example/x"}, OnOrphan: shell("mail -s kbsync ops <&0", runtime.GOOS),
				Timeout: 5 * time.Second,
			},
		},
		{
			Name: "b", Root: b, KnowledgeBase: 2,
			Batch: Batch{Documents: 5, Bytes: 32 << 20, Wait: 2 * time.Second}, Rescan: 10 * time.Minute, Settle: time.Second,
			OnUncertain: Resend, OnRefused: Split, Duplicates: Share, OnRename: Share, UploadName: Flat, SendAs: File, Preflight: Block, Secrets: Warn, Transcode: Off, Resaved: Skip, MaxSize: 100 << 20,
			MaxDelete: Limit{Percent: 100, ByPercent: true}, MaxChange: Limit{Percent: 50, ByPercent: true, Always: 20}, Hooks: Hooks{Timeout: 30 * time.Second},
		},
	}
	if !reflect.DeepEqual(c.Syncs, syncs) {
		t.Errorf("Syncs:\ngot  %+v\nwant %+v", c.Syncs, syncs)
	}
	if len(c.Warnings) > 0 {
		t.Errorf("Warnings = %v", c.Warnings)
	}
}

// TestEachMistakeHasPlaceAndRemedy has one mistake per case, and compares whole lines.
func TestEachMistakeHasPlaceAndRemedy(t *testing.T) {
	syncs := func(lines ...string) string { // from line 1, keys in column 5
		return "syncs:\n  - name: a\n    root: docs\n    knowledge_base: 1\n    " + strings.Join(lines, "\n    ") + "\n"
	}
	tests := []struct {
		name, file string
		want       []string // without the file's name
	}{
		{"hooks", syncs("hooks: {on_success: 'https://', timeout: 0s, on_sucess: x}", "heartbeat_url: ftp://a/b"), []string{
			"5:25: syncs[0].hooks.on_success: \"https://\" is not the address of a webhook; write one, such as https://hooks.example/kbsync",
			"5:46: syncs[0].hooks.timeout: \"0s\" is too small; write more than zero, such as 30s",
			"5:50: syncs[0].hooks.on_sucess: is not a setting; did you mean on_success?",
			"6:20: syncs[0].heartbeat_url: \"ftp://a/b\" is not a web address; write one, such as https://hc-ping.example/3f0c",
		}},
		{"unknown key", syncs("inclde: ['*']"), []string{"5:5: syncs[0].inclde: is not a setting; did you mean include?"}},
		{"unknown key, letters swapped", "trasnfers: 3\n" + minimal, []string{"1:1: trasnfers: is not a setting; did you mean transfers?"}},
		{"unknown key in a mapping", syncs("batch: {doc: 1, size: 2}"), []string{
			"5:13: syncs[0].batch.doc: is not a setting; the keys here are documents, bytes, wait",
			"5:21: syncs[0].batch.size: is not a setting; the keys here are documents, bytes, wait",
		}},
		{"key of another place", "include: ['*']\n" + minimal, []string{"1:1: include: is not a setting here; write it as a sync's include"}},
		{"flag's name as key", syncs("batch_documents: 3"), []string{"5:5: syncs[0].batch_documents: is not a setting here; write it as a sync's batch.documents"}},
		{"key of one sync in defaults", "defaults: {root: docs}\n" + minimal, []string{"1:12: defaults.root: belongs to one sync; write it below syncs"}},
		{"token in the file", "api:\n  token: eyJhbGciOi\n" + minimal, []string{"2:3: api.token: is not a setting, and a token does not belong in the file; set REPLYCX_TOKEN, or write api.token_file or api.token_command"}},
		{"odd key", "\"a\\nb\": 1\n" + minimal, []string{`1:1: "a\nb": is not a setting; the keys here are defaults, api, state, log, listen, listen_token_file, listen_read, period, touch_file, error_file, metrics_file, shutdown_grace, lock_timeout, transfers, checkers, bwlimit, max_transfer, max_duration, poll, train_timeout, syncs`}},

		{"list for a mapping", syncs("batch: [1]"), []string{"5:12: syncs[0].batch: a list is not a mapping; write keys and values: documents, bytes, wait"}},
		{"text for a mapping", "api: https://api.reply.cx\n" + minimal, []string{`1:6: api: "https://api.reply.cx" is not a mapping; write keys and values: url, token_file, token_command, account_id, rate, ca_cert, allow_insecure`}},
		{"mapping for a text", "state: {path: x}\n" + minimal, []string{"1:9: state: a mapping is not a single value; write one, such as kbsync.db"}},
		{"list for a number", "transfers: [4]\n" + minimal, []string{"1:12: transfers: a list is not a single value; write a whole number, such as 4"}},
		{"mapping in a list", syncs("include: ['*', {a: b}]"), []string{`5:21: syncs[0].include[1]: a mapping is not a text; write a list, such as ["**/*.md", "**/*.pdf"]`}},
		{"mapping for a list", "syncs: {name: a}\n", []string{"1:9: syncs: is not a list; begin each sync with a dash, such as - name: handbook"}},
		{"nothing behind the dash", minimal + "  -\n", []string{"6:5: syncs[1]: an empty value is not a sync; write keys and values after the dash, such as name: handbook"}},
		{"text for a sync", "syncs: [docs]\n", []string{`1:9: syncs[0]: "docs" is not a sync; write keys and values after the dash, such as name: handbook`}},

		{"text for a whole number", syncs("batch: {documents: twenty}"), []string{`5:24: syncs[0].batch.documents: "twenty" is not a whole number; write a whole number, such as 20`}},
		{"fraction for a whole number", "checkers: 1.5\n" + minimal, []string{`1:11: checkers: "1.5" is not a whole number; write a whole number, such as 4`}},
		{"text for a number", "api: {rate: fast}\n" + minimal, []string{`1:13: api.rate: "fast" is not a number; write a number, such as 5`}},
		{"infinite number", "api: {rate: .inf}\n" + minimal, []string{`1:13: api.rate: ".inf" is not a number; write a number, such as 5`}},
		{"text for true or false", syncs("copy_links: maybe"), []string{`5:17: syncs[0].copy_links: "maybe" is not true or false; write true or false`}},
		{"zero", "transfers: 0\n" + minimal, []string{`1:12: transfers: "0" is too small; write more than zero, such as 4`}},
		{"too many digits", "syncs:\n  - name: a\n    root: docs\n    knowledge_base: 99999999999999999999\n", []string{`4:21: syncs[0].knowledge_base: "99999999999999999999" is not a whole number; write a whole number, such as 876`}},
		{"negative count", syncs("max_uploads: -1"), []string{`5:18: syncs[0].max_uploads: "-1" is negative; write a whole number, such as 500`}},
		{"negative size", syncs("max_size: -5MB"), []string{`5:15: syncs[0].max_size: "-5MB" is negative; write a number with a unit, such as 100MiB`}},
		{"negative duration", syncs("settle: -2s"), []string{`5:13: syncs[0].settle: "-2s" is negative; write a number with a unit, such as 2s`}},

		{"size", syncs("batch:", "  bytes: 32MBx"), []string{`6:14: syncs[0].batch.bytes: "32MBx" is not a size; write a number with a unit, such as 32MiB`}},
		{"size that cannot be off", syncs("batch: {bytes: off}"), []string{`5:20: syncs[0].batch.bytes: "off" is not a size; write a number with a unit, such as 32MiB`}},
		{"duration without a unit", syncs("rescan: 10"), []string{`5:13: syncs[0].rescan: "10" is not a duration; write a number with a unit, such as 10m`}},
		{"duration", "train_timeout: 2 hours\n" + minimal, []string{`1:16: train_timeout: "2 hours" is not a duration; write a number with a unit, such as 2h`}},
		{"share of changes", syncs("max_change: some"), []string{`5:17: syncs[0].max_change: "some" is not a number or a percentage; write a number, or a percentage up to 100%, such as 50%`}},
		{"percentage", syncs("max_delete: 120%"), []string{`5:17: syncs[0].max_delete: "120%" is not a number or a percentage; write a number, or a percentage up to 100%, such as 50%`}},
		{"pattern", syncs("include:", "  - '*.md'", "  - 'docs/[a'"), []string{`7:9: syncs[0].include[1]: "docs/[a" is not a pattern; close its brackets and braces, or escape a literal one with a backslash`}},
		{"empty pattern", syncs("exclude: ['']"), []string{`5:15: syncs[0].exclude[0]: "" is empty; write a list, such as ["drafts/**"]`}},
		{"choice", syncs("on_uncertain: resnd"), []string{`5:19: syncs[0].on_uncertain: "resnd" is not one of resend, hold; did you mean resend?`}},
		{"choice far off", "log: {level: 7}\n" + minimal, []string{`1:14: log.level: "7" is not one of debug, info, warn, error; write one of them`}},
		{"name", "syncs:\n  - name: a/b\n    root: docs\n    knowledge_base: 1\n", []string{`2:11: syncs[0].name: "a/b" is not a name; write up to 64 letters, digits, dots, dashes and underscores, beginning with a letter or digit`}},
		{"address", "listen: localhost\n" + minimal, []string{`1:9: listen: "localhost" is not an address; write a host and a port, such as 127.0.0.1:9090`}},
		{"port", "listen: localhost:http\n" + minimal, []string{`1:9: listen: "localhost:http" is not an address; write a host and a port, such as 127.0.0.1:9090`}},
		{"command for a shell", "api: {token_command: 'pass x | head'}\n" + minimal, []string{`1:22: api.token_command: "pass x | head" needs a shell; write a list of words, such as [sh, -c, "..."]`}},
		{"home directory", "state: ~/kbsync.db\n" + minimal, []string{`1:8: state: "~/kbsync.db" begins with ~, which only a shell expands; write the whole path`}},

		{"URL", "api: {url: 'http://[x'}\n" + minimal, []string{`1:12: api.url: "http://[x" is not a URL; write one, such as https://api.reply.cx`}},
		{"URL without a scheme", "api: {url: api.reply.cx}\n" + minimal, []string{`1:12: api.url: "api.reply.cx" has no scheme; write the whole URL, such as https://api.reply.cx`}},
		{"URL of another scheme", "api: {url: 'ftp://api.reply.cx'}\n" + minimal, []string{`1:12: api.url: "ftp://api.reply.cx" is not the address of an API; write one, such as https://api.reply.cx`}},
		{"URL with a query", "api: {url: 'https://api.reply.cx?x=y'}\n" + minimal, []string{`1:12: api.url: "https://api.reply.cx?x=y" contains ? or #; write only the address, such as https://api.reply.cx`}},
		{"URL with credentials", "api: {url: 'https://me:hunter2@api.reply.cx'}\n" + minimal, []string{`1:12: api.url: the URL contains credentials; remove them, because logs show URLs`}},
		{"unencrypted URL", "api: {url: 'http://api.reply.cx'}\n" + minimal, []string{`1:12: api.url: "http://api.reply.cx" would send the token unencrypted; write https://, or allow it with allow_insecure: true or --allow-insecure on a network that you trust`}},

		{"bucket with a path", "syncs:\n  - name: a\n    root: s3://bucket/docs\n    knowledge_base: 1\n", []string{`3:11: syncs[0].root: "s3://bucket/docs" has a path; write the folder as a parameter, such as s3://bucket?prefix=docs/`}},
		{"notifications of a bucket", "syncs:\n  - name: a\n    root: s3://bucket\n    knowledge_base: 1\n    notifications: awssqs://sqs.eu-west-1.amazonaws.com/1/docs\n", nil},
		{"notifications by another scheme", "syncs:\n  - name: a\n    root: s3://bucket\n    knowledge_base: 1\n    notifications: https://sqs.eu-west-1.amazonaws.com/1/docs\n", []string{`5:20: syncs[0].notifications: "https://sqs.eu-west-1.amazonaws.com/1/docs" is not the URL of a subscription; its scheme must be one of awssqs, gcppubsub, azuresb, kafka, rabbit, nats, tls`}},
		{"notifications by nothing", "syncs:\n  - name: a\n    root: s3://bucket\n    knowledge_base: 1\n    notifications: nats:///\n", []string{`5:20: syncs[0].notifications: "nats:///" names no subscription; write one, such as awssqs://sqs.eu-west-1.amazonaws.com/123456789012/docs`}},
		{"notifications with a password", "syncs:\n  - name: a\n    root: s3://bucket\n    knowledge_base: 1\n    notifications: nats://me:hunter2@host/DOCS\n", []string{`5:20: syncs[0].notifications: the URL contains credentials; remove them, because logs show URLs`}},
		{"notifications with a password in a parameter", "syncs:\n  - name: a\n    root: s3://bucket\n    knowledge_base: 1\n    notifications: awssqs://host/1/docs?endpoint=https://me:hunter2@host\n", []string{`5:20: syncs[0].notifications: the URL contains credentials; remove them, because logs show URLs`}},
		{"no bucket", "syncs:\n  - name: a\n    root: gs://?prefix=docs/\n    knowledge_base: 1\n", []string{`3:11: syncs[0].root: "gs://?prefix=docs/" names no bucket; write one, such as s3://bucket?prefix=docs/`}},
		{"unknown scheme", "syncs:\n  - name: a\n    root: ftp://host/docs\n    knowledge_base: 1\n", []string{`3:11: syncs[0].root: "ftp://host/docs" has an unknown scheme; write a path, or a URL with file://, s3://, gs://, azblob://, mem://`}},
		{"file URL of a host", "syncs:\n  - name: a\n    root: file://host/docs\n    knowledge_base: 1\n", []string{`3:11: syncs[0].root: "file://host/docs" is not a file URL; write file:/// and an absolute path, or only the path`}},
		{"PostgreSQL state", "state: postgres://me:hunter2@host/db\n" + minimal, []string{`1:8: state: the URL contains a password; remove it, and set PGPASSWORD, or name a password file with PGPASSFILE, or write the whole URL into KBSYNC_STATE`}},
		{"PostgreSQL state without a password", "state: postgres://me@host/db\n" + minimal, nil},
		{"PostgreSQL state with the password in a parameter", "state: postgres://host/db?password=hunter2\n" + minimal, []string{`1:8: state: the URL has the parameter password; remove it, because logs show URLs, and set PGPASSWORD, or name a password file with PGPASSFILE`}},
		{"PostgreSQL state with an @ behind its host", "state: postgres://me:1/hunter2@host/db\n" + minimal, []string{"1:8: state: the URL has an @ or a # behind its host; write special characters of the user and the password as %XX"}},
		{"PostgreSQL root", "syncs:\n  - name: a\n    root: postgres://host/db\n    knowledge_base: 1\n", []string{`3:11: syncs[0].root: "postgres://host/db" has an unknown scheme; write a path, or a URL with file://, s3://, gs://, azblob://, mem://`}},
		{"state of another scheme", "state: mysql://host/db\n" + minimal, []string{`1:8: state: "mysql://host/db" has an unknown scheme; write a path, or a URL with file:// or postgres://`}},
		{"notifications of a directory", syncs("notifications: awssqs://host/queue"), []string{"5:20: syncs[0].notifications: is for buckets only; remove it, kbsync watches a directory without it"}},

		{"missing keys", "syncs:\n  - include: ['*']\n", []string{
			"2:5: syncs[0].name: is missing; write a name for the sync, such as name: handbook",
			"2:5: syncs[0].root: is missing; write the directory to watch, such as root: ./docs",
			"2:5: syncs[0].knowledge_base: is missing; write the id of the knowledge base, such as knowledge_base: 876, or use --knowledge-base",
		}},
		{"missing value", "syncs:\n  - name: a\n    root: docs\n    knowledge_base:\n", []string{"4:5: syncs[0].knowledge_base: is missing; write the id of the knowledge base, such as knowledge_base: 876, or use --knowledge-base"}},
		{"missing root", "syncs:\n  - name: a\n    knowledge_base: 1\n", []string{"2:5: syncs[0].root: is missing; write the directory to watch, such as root: ./docs"}},
		{"empty root", "syncs:\n  - name: a\n    root: ''\n    knowledge_base: 1\n", []string{`3:11: syncs[0].root: "" is empty; write one, such as ./docs`}},
		{"two of a name", minimal + "  - name: Handbook\n    root: x\n    knowledge_base: 1\n", []string{`6:11: syncs[1].name: "Handbook" is already the name of syncs[0] in line 3; write another name`}},
		{"two tokens", "api: {token_file: a, token_command: [b]}\n" + minimal, []string{"1:37: api.token_command: api.token_file is set too; keep one of them"}},
		{"poll", "poll: {min: 2m}\n" + minimal, []string{"1:13: poll.min: poll.min (2m0s) is longer than poll.max (1m0s); write a range, such as 350ms to 60s"}},
		{"poll, the other way", "poll: {max: 100ms}\n" + minimal, []string{"1:13: poll.max: poll.min (350ms) is longer than poll.max (100ms); write a range, such as 350ms to 60s"}},

		{"poll that cannot be read", "poll: {max: 1}\n" + minimal, []string{`1:13: poll.max: "1" is not a duration; write a number with a unit, such as 60s`}},
		{"port out of range", "listen: :70000\n" + minimal, []string{`1:9: listen: ":70000" is not an address; write a host and a port, such as 127.0.0.1:9090`}},
		{"blanks behind a value", "transfers: x  \ncheckers: é é \t \npoll:\n\n  # c\n  min:   x \n  max: 'y'   \n" + minimal, []string{
			`1:12: transfers: "x" is not a whole number; write a whole number, such as 4`,
			`2:11: checkers: "é é" is not a whole number; write a whole number, such as 4`,
			`6:10: poll.min: "x" is not a duration; write a number with a unit, such as 350ms`,
			`7:8: poll.max: "y" is not a duration; write a number with a unit, such as 60s`,
		}},
		{"empty", "", []string{"1:1: the file is empty; write at least one sync, or let kbsync init write a file"}},
		{"empty but for comments", "# nothing\n---\n", []string{"1:1: the file is empty; write at least one sync, or let kbsync init write a file"}},
		{"not settings", "- a\n- b\n", []string{"1:1: the file contains no settings; write keys and values, such as state: kbsync.db"}},
		{"two documents", minimal[1:] + "---\nstate: x\n", []string{"6:6: a second document begins here; keep one document per file"}},
		{"key twice", "state: a\ntransfers: 1\nstate: b\n" + minimal, []string{"3:1: state: is a duplicate of line 1; keep one of them"}},
		{"key twice in a sync", syncs("root: other"), []string{"5:5: syncs[0].root: is a duplicate of line 3; keep one of them"}},
		{"tab", "api:\n\turl: x\n", []string{"2:1: is not valid YAML: found character '\\t' that cannot start any token"}},
		{"open bracket", "syncs: [a\n", []string{"1:8: is not valid YAML: sequence end token ']' not found"}},
		{"not UTF-8", "state: a\nlisten: \xff\n", []string{"2:1: this line is not UTF-8; save the file as UTF-8"}},
		{"no anchor", "state: *nope\n" + minimal, []string{`1:8: state: no anchor "&nope" is defined before this alias; define it first`}},
		{"alias of itself", "syncs: &s\n  - *s\n", []string{`2:5: syncs[0]: the alias "*s" is inside the value that it repeats; write the value out`}},
		{"merge of a list", "syncs:\n  - name: a\n    root: docs\n    knowledge_base: 1\n    <<: [1]\n", []string{"5:10: syncs[0].<<: only a mapping can be merged; write the alias of one"}},
		{"tag", "state: !path x\n" + minimal, []string{`1:8: state: the tag "!path" is not supported; remove it`}},
		{"key that is no word", "? [a]\n: 1\n" + minimal, []string{"2:1: is not valid YAML: found an invalid key for this map"}},
		{"key that is an alias", "state: &a x\n*a : 1\n" + minimal, []string{"2:1: this key is not a plain word; write a setting's name"}},
		{"NUL", "state: \x00\n" + minimal, []string{"1:8: the file contains a NUL byte; remove it"}},
		{"NUL in a path", "state: \"a\\0b\"\n" + minimal, []string{`1:8: state: "a\x00b" contains a NUL byte; write a path`}},
		{"deep", strings.Repeat("[", 100_000), []string{"1:1: this line is longer than 16KiB; split it"}},
		{"deeper", strings.Repeat("[\n", 100_000), []string{"201:1: brackets are nested too deeply here; close them"}},
		{"large", strings.Repeat("#\n", 1<<20), []string{"1:1: the file is larger than 1MiB, so it cannot be a config file"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := mistakes(t, Input{Path: "kbsync.yaml", File: []byte(tt.file), Dir: workDir(t)})
			var want []string
			for _, w := range tt.want {
				want = append(want, "kbsync.yaml:"+w)
			}
			if !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// The mistakes in the file come first, in its order, then the others.
func TestParseReportsAllMistakesTogether(t *testing.T) {
	got := mistakes(t, Input{
		Path: "/etc/kbsync.yaml",
		File: []byte("transfers: x\nsyncs:\n  - name: a\n    root: docs\n    settle: 1\ncheckers: y\n"),
		Dir:  workDir(t),
		Environ: []string{
			"KBSYNC_BATCH_BYTES=many", "KBSYNC_STATES=x", "KBSYNC_TOKEN=hunter2", "KBSYNC_CONFIG=x", "KBSYNC_", "PATH=/bin",
		},
		Flags:      map[string][]string{"include": {"[", "*"}, "max-delete": {"1", "half"}, "max-change": {"most"}, "emulator": {"true"}},
		OtherFlags: []string{"config"},
	})
	want := []string{
		`/etc/kbsync.yaml:1:12: transfers: "x" is not a whole number; write a whole number, such as 4`,
		`/etc/kbsync.yaml:3:5: syncs[0].knowledge_base: is missing; write the id of the knowledge base, such as knowledge_base: 876, or use --knowledge-base`,
		`/etc/kbsync.yaml:5:13: syncs[0].settle: "1" is not a duration; write a number with a unit, such as 2s`,
		`/etc/kbsync.yaml:6:11: checkers: "y" is not a whole number; write a whole number, such as 4`,
		`KBSYNC_STATES: is not a setting; did you mean KBSYNC_STATE?`,
		`KBSYNC_TOKEN: is not a setting; the token's variable is REPLYCX_TOKEN`,
		`--include: "[" is not a pattern; close its brackets and braces, or escape a literal one with a backslash`,
		`KBSYNC_BATCH_BYTES: "many" is not a size; write a number with a unit, such as 32MiB`,
		`--max-delete: "half" is not a number or a percentage; write a number, or a percentage up to 100%, such as 50%`,
		`--max-change: "most" is not a number or a percentage; write a number, or a percentage up to 100%, such as 50%`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestNumberOfReportedMistakesIsLimited(t *testing.T) {
	var file strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&file, "key%d: 1\n", i)
	}
	if got := len(mistakes(t, Input{Path: "x", File: []byte(file.String()), Dir: workDir(t)})); got != maxProblems {
		t.Errorf("%d mistakes reported, want %d", got, maxProblems)
	}
}

func TestFlagOverridesEnvironmentOverridesFile(t *testing.T) {
	values := map[Kind][3]string{
		KindInt:      {"11", "12", "13"},
		KindNumber:   {"1.5", "2.5", "3.5"},
		KindSize:     {"1MiB", "2MiB", "3MiB"},
		KindDuration: {"11s", "12s", "13s"},
		KindPercent:  {"1%", "2%", "3%"},
		KindPath:     {"p1", "p2", "p3"},
		KindPlace:    {"p1", "p2", "p3"},
		KindURL:      {"https://a.example", "https://b.example", "https://c.example"},
		KindAddress:  {"a:1", "a:2", "a:3"},
		KindPatterns: {"*.a", "*.b", "*.c"},
		KindPaths:    {"p1", "p2", "p3"},
	}
	dir := workDir(t)
	for _, s := range Settings() {
		if s.Name == "" {
			continue
		}
		v, ok := values[s.Kind]
		switch {
		case s.Kind == KindChoice:
			v = [3]string{s.Choices[0], s.Choices[1], s.Choices[0]}
		case s.Kind == KindBool:
			v = [3]string{"true", "false", "true"}
		case !ok:
			t.Fatalf("no values for a %s", s.Kind)
		}
		if s.Key == "poll.max" {
			v = [3]string{"111s", "112s", "113s"}
		}
		root := "docs"
		if s.Key == "syncs[].notifications" {
			v, root = [3]string{"nats://a/S", "rabbit://b", "kafka://c?topic=d"}, "s3://bucket"
		}
		key := s.Key
		file := "syncs:\n  - name: a\n    root: " + root + "\n"
		if key != "syncs[].knowledge_base" {
			file += "    knowledge_base: 1\n"
		}
		line := func(indent, key string) string {
			if group, leaf, found := strings.Cut(key, "."); found {
				return fmt.Sprintf("%s%s: {%s: %q}\n", indent, group, leaf, v[0])
			}
			return fmt.Sprintf("%s%s: %q\n", indent, key, v[0])
		}
		if inSync, found := strings.CutPrefix(key, "syncs[]."); found {
			file += line("    ", inSync)
		} else {
			file = line("", key) + file
		}
		read := func(in Input) any {
			in.Path, in.Dir = "kbsync.yaml", dir
			c := parse(t, in)
			if s.config != nil {
				return reflect.ValueOf(s.config(c)).Elem().Interface()
			}
			return reflect.ValueOf(s.sync(&c.Syncs[0])).Elem().Interface()
		}
		want := func(text string) any {
			ptr := s.sample()
			if list, ok := ptr.(*[]string); ok {
				l, err := s.element(text, dir)
				if err != nil {
					t.Fatal(err)
				}
				*list = l
			} else if err := s.store(ptr, text, dir); err != nil {
				t.Fatal(err)
			}
			return reflect.ValueOf(ptr).Elem().Interface()
		}
		env := []string{s.Env() + "=" + v[1]}
		flags := map[string][]string{s.Name: {v[2]}}
		for i, in := range []Input{
			{File: []byte(file)},
			{File: []byte(file), Environ: env},
			{File: []byte(file), Environ: env, Flags: flags},
		} {
			if got := read(in); !reflect.DeepEqual(got, want(v[i])) {
				t.Errorf("%s, case %d: got %v, want %v", s.Key, i, got, v[i])
			}
		}
	}
}

// sample returns a new variable of the setting's type.
func (s *Setting) sample() any {
	if s.config != nil {
		return s.config(&Config{})
	}
	return s.sync(&Sync{})
}

// No name is in the table twice, every default and example is valid, and exactly
// one row sets each field of a Config.
func TestTableOfSettingsIsComplete(t *testing.T) {
	seen := map[string]bool{}
	fields := map[any]string{}
	c, sync := &Config{}, &Sync{}
	for _, s := range Settings() {
		for _, name := range []string{"--" + s.Name, s.Key} {
			if seen[name] && name != "--" {
				t.Errorf("%s is in the table twice", name)
			}
			seen[name] = true
		}
		if (s.Name == "") != (s.Scope == ScopeFile) || (s.config == nil) == (s.sync == nil) || (s.sync != nil) != strings.HasPrefix(s.Key, "syncs[].") {
			t.Errorf("%s: the row contradicts itself", s.Key)
		}
		if !strings.HasSuffix(s.Usage, ".") || s.Default == "" && s.example == "" {
			t.Errorf("%s: no sentence, or nothing to show as an example", s.Key)
		}
		var ptr any
		if s.config != nil {
			ptr = s.config(c)
		} else {
			ptr = s.sync(sync)
		}
		if other, twice := fields[ptr]; twice {
			t.Errorf("%s and %s have the same field", s.Key, other)
		}
		fields[ptr] = s.Key
		if _, list := ptr.(*[]string); list {
			if s.Kind != KindPatterns && s.Kind != KindPaths && s.Kind != KindCommand && s.Kind != KindHook {
				t.Errorf("%s: a list of kind %s", s.Key, s.Kind)
			}
			continue
		}
		for _, text := range []string{s.Default, s.example} {
			if text == "" {
				continue
			}
			if err := s.store(s.sample(), text, workDir(t)); err != nil {
				t.Errorf("%s: %q %v", s.Key, text, err)
			}
		}
	}
	var walk func(v reflect.Value, name string)
	walk = func(v reflect.Value, name string) {
		if v.CanAddr() && v.Addr().CanInterface() {
			if _, ok := fields[v.Addr().Interface()]; ok {
				return
			}
		}
		switch name {
		case "Config.Path", "Config.API.Token", "Config.StatePassword", "Config.LocalState", "Config.UserDir", "Config.Syncs", "Config.Selected", "Config.Warnings", "Config.configPath":
			return
		}
		if v.Kind() != reflect.Struct {
			t.Errorf("no setting for %s", name)
			return
		}
		for i := range v.NumField() {
			walk(v.Field(i), name+"."+v.Type().Field(i).Name)
		}
	}
	walk(reflect.ValueOf(c).Elem(), "Config")
	walk(reflect.ValueOf(sync).Elem(), "Sync")
}

func TestEnvironmentVariables(t *testing.T) {
	dir := workDir(t)
	c := parse(t, Input{
		Dir: dir,
		Environ: []string{
			"REPLYCX_TOKEN= hunter2\n",
			"KBSYNC_INCLUDE=**/*.{md,txt}, a\\,b.md\n[a,b]*",
			"KBSYNC_FILTER_FROM=one, two\nthree",
			"KBSYNC_EXCLUDE=",
			"KBSYNC_COPY_LINKS=1",
			"KBSYNC_KNOWLEDGE_BASE=876",
			"KBSYNC_STATE=state.db",
			// Kubernetes adds these for Services named kbsync and kbsync-web.
			"KBSYNC_SERVICE_HOST=10.0.0.1", "KBSYNC_SERVICE_PORT_HTTP=80", "KBSYNC_PORT=tcp://10.0.0.1:80", "KBSYNC_PORT_80_TCP_ADDR=10.0.0.1",
			"KBSYNC_WEB_SERVICE_HOST=10.0.0.1", "KBSYNC_WEB_PORT_80_TCP=tcp://10.0.0.1:80",
		},
		Args: []string{"docs"},
	})
	s := c.Syncs[0]
	if want := []string{"**/*.{md,txt}", `a\,b.md`, "[a,b]*"}; !slices.Equal(s.Include, want) {
		t.Errorf("Include = %q, want %q", s.Include, want)
	}
	if want := []string{filepath.Join(dir, "one, two"), filepath.Join(dir, "three")}; !slices.Equal(s.FilterFrom, want) {
		t.Errorf("FilterFrom = %q, want %q", s.FilterFrom, want)
	}
	if s.Exclude != nil || !s.CopyLinks || s.KnowledgeBase != 876 || c.State != filepath.Join(dir, "state.db") || c.API.Token.Reveal() != "hunter2" {
		t.Errorf("got %+v", c)
	}

	for _, tt := range []struct{ env, want string }{
		{"KBSYNC_PORT=80", "KBSYNC_PORT: is not a setting; remove it from the environment"},
		{"KBSYNC_KNOWLEDGEBASE=1", "KBSYNC_KNOWLEDGEBASE: is not a setting; did you mean KBSYNC_KNOWLEDGE_BASE?"},
		{"KBSYNC_CONFG=1", "KBSYNC_CONFG: is not a setting; did you mean KBSYNC_CONFIG?"},
		{"REPLYCX_TOKEN=Bearer hunter2", "REPLYCX_TOKEN: contains white space; set only the token, without a word such as Bearer before it"},
	} {
		got := mistakes(t, Input{Dir: dir, Environ: []string{"KBSYNC_STATE=x", tt.env}, OtherFlags: []string{"config"}})
		if !slices.Equal(got, []string{tt.want}) {
			t.Errorf("%s: got %q, want %q", tt.env, got, tt.want)
		}
	}
	if got := variables([]string{"=C:=x", "Path=y", "kbsync_state=z"}, "windows"); !reflect.DeepEqual(got, map[string]string{"PATH": "y", "KBSYNC_STATE": "z"}) {
		t.Errorf("on Windows: %v", got)
	}
}

func TestArgumentsSelectAndAddSyncs(t *testing.T) {
	dir := workDir(t)
	two := minimal + "  - name: other\n    root: ./files\n    knowledge_base: 2\n"
	adHoc := AdHocName(Root{Dir: filepath.Join(dir, "docs")})
	kb := map[string][]string{"knowledge-base": {"7"}}
	tests := []struct {
		name     string
		file     string
		args     []string
		flags    map[string][]string
		syncs    []string
		selected []string
		mistake  string
	}{
		{"none", two, nil, nil, []string{"handbook", "other"}, []string{"handbook", "other"}, ""},
		{"name", two, []string{"other"}, nil, []string{"handbook", "other"}, []string{"other"}, ""},
		{"names", two, []string{"other", "handbook"}, nil, []string{"handbook", "other"}, []string{"handbook", "other"}, ""},
		{"configured root", two, []string{"./docs/"}, nil, []string{"handbook", "other"}, []string{"handbook"}, ""},
		{"root", "", []string{"docs"}, kb, []string{adHoc}, []string{adHoc}, ""},
		{"root twice", "", []string{"docs", "./docs"}, kb, []string{adHoc}, []string{adHoc}, ""},
		{"root beside a file", two, []string{"./more"}, kb, []string{"handbook", "other", AdHocName(Root{Dir: filepath.Join(dir, "more")})}, []string{AdHocName(Root{Dir: filepath.Join(dir, "more")})}, ""},
		{"default knowledge base", "defaults: {knowledge_base: 3}\n", []string{"docs"}, nil, []string{adHoc}, []string{adHoc}, ""},
		{"no knowledge base", "", []string{"docs"}, nil, nil, nil, fmt.Sprintf("--knowledge-base: is missing for %q; write the id of the knowledge base, such as --knowledge-base 876", filepath.Join(dir, "docs"))},
		{"misspelt name", two, []string{"handbok"}, nil, nil, nil, `argument: "handbok" is not the name of a sync; did you mean handbook? (write "./handbok" for a directory of that name)`},
		{"no name", two, []string{"xyz"}, nil, nil, nil, `argument: "xyz" is not the name of a sync; the names are handbook, other (write "./xyz" for a directory of that name)`},
		{"bucket", two, []string{"s3://b?prefix=docs/"}, kb, []string{"handbook", "other", AdHocName(Root{URL: "s3://b?prefix=docs/"})}, []string{AdHocName(Root{URL: "s3://b?prefix=docs/"})}, ""},
		{"bucket with a password", two, []string{"s3://k:s@b"}, kb, nil, nil, `argument: the URL contains credentials; remove them, because logs show URLs`},
		{"endpoint with a password", two, []string{"s3://b?endpoint=https://k:s@host"}, kb, nil, nil, `argument: the URL contains credentials; remove them, because logs show URLs`},
		{"empty", "", []string{""}, kb, nil, nil, `argument: "" is empty; write the name of a sync, or a directory`},
		{"the state", "", []string{"state.db"}, kb, nil, nil, fmt.Sprintf("argument: %q is the file of the state; write the directory with the documents", filepath.Join(dir, "state.db"))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := Input{Dir: dir, Environ: []string{"KBSYNC_STATE=state.db"}, Args: tt.args, Flags: tt.flags}
			if tt.file != "" {
				in.Path, in.File = "kbsync.yaml", []byte(tt.file)
			}
			c, err := Parse(in)
			if tt.mistake != "" {
				if err == nil || err.Error() != tt.mistake {
					t.Errorf("got  %v\nwant %v", err, tt.mistake)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, s := range c.Syncs {
				names = append(names, s.Name)
			}
			if !slices.Equal(names, tt.syncs) || !slices.Equal(c.Selected, tt.selected) {
				t.Errorf("syncs %q, selected %q; want %q, %q", names, c.Selected, tt.syncs, tt.selected)
			}
		})
	}
}

func TestOverlappingRootsWarn(t *testing.T) {
	tests := []struct{ root, want string }{
		{"docs", `kbsync.yaml:7:11: syncs[1].root: "b" has the same root and knowledge base as syncs[0] in line 3; kbsync uploads the documents that both select once`},
		{"docs/sub", `kbsync.yaml:7:11: syncs[1].root: "b" and syncs[0] in line 3 have overlapping roots and the same knowledge base; kbsync uploads the documents that both select once`},
		{".", `kbsync.yaml:7:11: syncs[1].root: "b" and syncs[0] in line 3 have overlapping roots and the same knowledge base; kbsync uploads the documents that both select once`},
		{"docs2", ""},
		{"..docs", ""},
	}
	for _, tt := range tests {
		for _, kb := range []int{876, 877} {
			file := fmt.Sprintf("%s  - name: b\n    root: %s\n    knowledge_base: %d\n", minimal, tt.root, kb)
			c := parse(t, Input{Path: "kbsync.yaml", File: []byte(file), Dir: workDir(t)})
			var got string
			for _, w := range c.Warnings {
				got += w.String()
			}
			if want := tt.want; kb == 876 && got != want || kb != 876 && got != "" {
				t.Errorf("%s, %d: got %q, want %q", tt.root, kb, got, want)
			}
		}
	}
}

func TestRootMustNotBeTheState(t *testing.T) {
	dir := workDir(t)
	tests := []struct{ root, state, want string }{
		{"docs", "docs/kbsync.db", ""},
		{".", "kbsync.db", ""},
		{"docs", "docs", "is the file of the state"},
		{"docs/", "./docs", "is the file of the state"},
		{"docs/sub", "docs", "is below the file of the state"},
		{"docs2", "docs", ""},
	}
	for _, tt := range tests {
		file := fmt.Sprintf("state: %s\nsyncs:\n  - name: a\n    root: %s\n    knowledge_base: 1\n", tt.state, tt.root)
		got := mistakes(t, Input{Path: "kbsync.yaml", File: []byte(file), Dir: dir})
		if tt.want == "" && len(got) == 0 {
			continue
		}
		if len(got) != 1 || tt.want == "" || !strings.HasPrefix(got[0], "kbsync.yaml:4:11: syncs[0].root: ") || !strings.Contains(got[0], tt.want) {
			t.Errorf("root %s, state %s: got %q, want %q", tt.root, tt.state, got, tt.want)
		}
	}
}

func TestDefaultPathOfTheState(t *testing.T) {
	abs := func(p string) string { return filepath.Join(workDir(t), p) }
	tests := []struct {
		config, goos string
		vars         map[string]string
		want         string
	}{
		{abs("conf/kbsync.yaml"), "linux", map[string]string{"HOME": abs("home")}, abs("conf/kbsync.db")},
		{"", "linux", map[string]string{"HOME": abs("home")}, abs("home/.local/state/kbsync/kbsync.db")},
		{"", "linux", map[string]string{"HOME": abs("home"), "XDG_STATE_HOME": abs("xdg")}, abs("xdg/kbsync/kbsync.db")},
		{"", "linux", map[string]string{"HOME": abs("home"), "XDG_STATE_HOME": "xdg"}, abs("home/.local/state/kbsync/kbsync.db")},
		{"", "darwin", map[string]string{"HOME": abs("home")}, abs("home/Library/Application Support/kbsync/kbsync.db")},
		{"", "windows", map[string]string{"LOCALAPPDATA": abs("local")}, abs("local/kbsync/kbsync.db")},
		{"", "linux", nil, ""},
		{"", "darwin", nil, ""},
		{"", "windows", nil, ""},
	}
	for _, tt := range tests {
		got, err := defaultState(tt.config, tt.vars, tt.goos)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%q, %s, %v: got %q, %v; want %q", tt.config, tt.goos, tt.vars, got, err, tt.want)
		}
	}
	if got := mistakes(t, Input{Dir: workDir(t)}); !slices.Equal(got, []string{"--state: there is no home directory for the state; write --state PATH, or set KBSYNC_STATE"}) {
		t.Errorf("without a home: %q", got)
	}
}

// A path in a flag or a variable is relative to the working directory.
func TestPathInTheFileIsRelativeToTheFile(t *testing.T) {
	dir := workDir(t)
	file := "state: s.db\napi: {ca_cert: c.pem}\n" + minimal + "    filter_from: [f1, f2]\n"
	c := parse(t, Input{Path: "../conf/kbsync.yaml", File: []byte(file), Dir: dir, Environ: []string{"KBSYNC_TOKEN_FILE=t"}, Flags: map[string][]string{"state": {"f.db"}}})
	conf := filepath.Join(dir, "..", "conf")
	got := append([]string{c.State, c.API.CACert, c.API.TokenFile, c.Syncs[0].Root.Dir}, c.Syncs[0].FilterFrom...)
	want := []string{
		filepath.Join(dir, "f.db"), filepath.Join(conf, "c.pem"), filepath.Join(dir, "t"), filepath.Join(conf, "docs"),
		filepath.Join(conf, "f1"), filepath.Join(conf, "f2"),
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := c.Private(), []string{filepath.Join(dir, "f.db"), filepath.Join(conf, "kbsync.yaml"), filepath.Join(dir, "t"), filepath.Join(conf, "f1"), filepath.Join(conf, "f2")}; !slices.Equal(got, want) {
		t.Errorf("Private = %q, want %q", got, want)
	}
}

func TestKnowledgeBaseFromDefaultsFlagOrVariable(t *testing.T) {
	file := "syncs:\n  - {name: a, root: a}\n  - {name: b, root: b}\n"
	for _, in := range []Input{
		{File: []byte("defaults: {knowledge_base: 7}\n" + file)},
		{File: []byte(file), Flags: map[string][]string{"knowledge-base": {"7"}}},
		{File: []byte(file), Environ: []string{"KBSYNC_KNOWLEDGE_BASE=7"}},
		{File: []byte(strings.Replace(file, "b}", "b, knowledge_base: 8}", 1)), Flags: map[string][]string{"knowledge-base": {"8", "7"}}},
	} {
		in.Path, in.Dir = "kbsync.yaml", workDir(t)
		for _, s := range parse(t, in).Syncs {
			if s.KnowledgeBase != 7 {
				t.Errorf("%s: %s has knowledge base %d", in.File, s.Name, s.KnowledgeBase)
			}
		}
	}
}

func TestPlainHTTPIsAllowedOnTheLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1:8080": true, "[::1]:8080": true, "localhost": true, "api.localhost:1": true,
		"localhost.example": false, "10.0.0.1": false, "0.0.0.0": false, "[::]": false, "notlocalhost": false,
	} {
		_, err := Parse(Input{Dir: workDir(t), Flags: map[string][]string{"api-url": {"http://" + host}, "state": {"x"}}})
		if (err == nil) != want {
			t.Errorf("http://%s: %v", host, err)
		}
	}
}

func TestTokenFileFlagOverridesTokenCommand(t *testing.T) {
	file := "api: {token_command: pass show replycx}\n" + minimal
	c := parse(t, Input{Path: "kbsync.yaml", File: []byte(file), Dir: workDir(t)})
	if !slices.Equal(c.API.TokenCommand, []string{"pass", "show", "replycx"}) {
		t.Errorf("TokenCommand = %q", c.API.TokenCommand)
	}
	c = parse(t, Input{Path: "kbsync.yaml", File: []byte(file), Dir: workDir(t), Flags: map[string][]string{"token-file": {"x"}}})
	if c.API.TokenCommand != nil || c.API.TokenFile == "" {
		t.Errorf("got %+v", c.API)
	}
}

func TestAnchorsAliasesAndMergeKeys(t *testing.T) {
	file := "\ufeff%YAML 1.2\n---\n" + `defaults: &d
  batch: &b {documents: 3}
syncs:
  - &one
    name: one
    root: docs
    knowledge_base: 1
    include: &md ["*.md"]
    batch: {<<: *b, bytes: 1MiB}
  - <<: *one
    name: two
    root: "two"
    "knowledge_base": "2"
    exclude: *md
  - {<<: [{name: three, settle: 9s}, *one], root: !!str 3, knowledge_base: 3}
  - name: |-
      four
    root: >-
      fo
      ur
    knowledge_base: 4
    include:
    exclude: [ ]
` + "...\n"
	c := parse(t, Input{Path: "kbsync.yaml", File: []byte(strings.ReplaceAll(file, "\n", "\r\n")), Dir: workDir(t)})
	var got []string
	for _, s := range c.Syncs {
		got = append(got, fmt.Sprint(s.Name, filepath.Base(s.Root.Dir), s.KnowledgeBase, s.Include, s.Exclude, s.Batch.Documents, s.Batch.Bytes, s.Settle))
	}
	want := []string{
		"onedocs1 [*.md] [] 3 1MiB 2s",
		"twotwo2 [*.md] [*.md] 3 1MiB 2s",
		"three33 [*.md] [] 3 1MiB 9s",
		"fourfo ur4 [] [] 3 32MiB 2s",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestNestedAliasesDoNotMakeAFileLarge(t *testing.T) {
	var file strings.Builder
	file.WriteString("a0: &a0 {k: v}\n")
	for i := range 200 {
		fmt.Fprintf(&file, "a%d: &a%d {<<: [*a%d, *a%d], x: [*a%d, *a%d]}\n", i+1, i+1, i, i, i, i)
	}
	if got := mistakes(t, Input{Path: "x", File: []byte(file.String()), Dir: workDir(t)}); len(got) == 0 {
		t.Error("no mistakes in a file of unknown keys")
	}
}

func TestSecretIsNotShown(t *testing.T) {
	const canary = "hunter2"
	c := parse(t, Input{Path: "kbsync.yaml", File: []byte(minimal), Dir: workDir(t), Environ: []string{"REPLYCX_TOKEN=" + canary}})
	if c.API.Token.Reveal() != canary {
		t.Fatalf("Reveal = %q", c.API.Token.Reveal())
	}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
		fmt.Fprintf(&out, verb+"\n", c)
		fmt.Fprintf(&out, verb+"\n", c.API.Token)
		fmt.Fprintf(&out, verb+"\n", &c.API.Token)
	}
	text := slog.New(slog.NewTextHandler(&out, nil))
	text.Info("x", "config", c, "api", c.API, "token", c.API.Token)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "config", c, "api", c.API, "token", c.API.Token)
	if err := json.NewEncoder(&out).Encode(c); err != nil {
		t.Fatal(err)
	}
	out.WriteString(c.API.Token.GoString())
	b, _ := c.API.Token.MarshalText()
	out.Write(b)
	for _, shape := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprint([]byte(canary))} {
		if strings.Contains(out.String(), shape) {
			t.Errorf("the token is shown as %s in\n%s", shape, out.String())
		}
	}
	if !strings.Contains(out.String(), redacted) || (Secret{}).String() != "" {
		t.Error("a set secret and an empty one must print differently")
	}
}

// A secret in the wrong place must not reach the terminal.
func TestMistakesShowNoSecret(t *testing.T) {
	const jwt = "eyJhbGciOiJIUzI1NiJ9.e30.hunter2"
	got := mistakes(t, Input{
		Path: "kbsync.yaml", Dir: workDir(t),
		File: []byte("transfers: " + jwt + "\n" + jwt + ": x\nstate: postgres://u:hunter2@h/%zz\nsyncs:\n  - name: " + jwt + "\n    root: s3://hunter2:x@b\n"),
		Environ: []string{
			"KBSYNC_RATE=" + jwt, "KBSYNC_TOKEN=hunter2", "KBSYNC_API_TOKEN=hunter2", "KBSYNC_FOO=hunter2", "REPLYCX_TOKEN=hunter2 x", "KBSYNC_API_URL=https://u:hunter2@h",
		},
		Flags: map[string][]string{"rate": {jwt}},
	})
	if all := strings.Join(got, "\n"); strings.Contains(all, "hunter2") || len(got) < 9 {
		t.Errorf("got\n%s", all)
	}
}

func TestSampleIsAValidConfig(t *testing.T) {
	dir := workDir(t)
	for _, tt := range []struct {
		root, name, dir string
	}{
		{"", "docs", "docs"},
		{"./My docs: \"é\"\n", "Mydocs", "My docs: \"é\"\n"},
		{"~", "documents", ""},
		{"..", "documents", ".."},
		{"true", "true", "true"},
	} {
		c, err := Parse(Input{Path: "kbsync.yaml", File: Sample(tt.root, 876), Dir: dir})
		if tt.root == "~" {
			if err == nil {
				t.Errorf("a root of ~ was accepted")
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", tt.root, err)
			continue
		}
		s := c.Syncs[0]
		if s.Name != tt.name || s.Root.Dir != filepath.Join(dir, tt.dir) || s.KnowledgeBase != 876 {
			t.Errorf("%q: got %+v", tt.root, s)
		}
	}
	got := mistakes(t, Input{Path: "kbsync.yaml", File: Sample("", 0), Dir: dir})
	if len(got) != 1 || !strings.Contains(got[0], ": syncs[0].knowledge_base: is missing;") {
		t.Errorf("without a knowledge base: %q", got)
	}
}

func TestUncommentedSampleHasEveryKeyAndTheDefaults(t *testing.T) {
	var lines []string
	sample := string(Sample("", 876))
	for line := range strings.Lines(sample) {
		trimmed := strings.TrimLeft(line, " ")
		if strings.HasPrefix(trimmed, "#") && !strings.HasPrefix(trimmed, "# ") && trimmed != "#\n" && !strings.Contains(trimmed, "token_command") {
			line = strings.Replace(line, "#", "", 1)
		}
		lines = append(lines, line)
	}
	for _, s := range Settings() {
		key := s.Key[strings.LastIndexByte(s.Key, '.')+1:] + ":"
		if !s.bucket && !strings.Contains(sample, key) {
			t.Errorf("%s is not in the sample", s.Key)
		}
	}
	got := parse(t, Input{Path: "kbsync.yaml", File: []byte(strings.Join(lines, "")), Dir: workDir(t)})
	want := parse(t, Input{Path: "kbsync.yaml", File: Sample("", 876), Dir: workDir(t)})
	if got.Listen == "" || got.API.AccountID == 0 || got.API.TokenFile == "" || got.Syncs[0].Include == nil {
		t.Errorf("examples were ignored: %+v", got)
	}
	got.Listen, got.API, got.ListenTokenFile, got.TouchFile, got.ErrorFile, got.MetricsFile = "", want.API, "", "", "", ""
	s := &got.Syncs[0]
	if WebhookURL(s.Hooks.OnFailure) == "" || WebhookURL(s.Hooks.OnSuccess) != "" || WebhookURL(s.Hooks.OnOrphan) != "" {
		t.Errorf("hooks are %+v", s.Hooks)
	}
	s.Include, s.Exclude, s.FilterFrom, s.HeartbeatURL, s.Hooks = nil, nil, nil, "", Hooks{Timeout: s.Hooks.Timeout}
	s.MaxDelete.Always, s.MaxChange.Always = defaultAlways, defaultAlways // what a person writes is obeyed to the letter
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}
