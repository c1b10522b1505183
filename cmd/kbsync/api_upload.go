package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/replycx"
)

// What one request of api upload holds at most.
const (
	filesPerRequest = 20
	bytesPerRequest = 32 << 20
)

type uploadOptions struct {
	knowledgeBase int64
	name          string
	yes           bool
}

func (a *app) apiUploadCommand() *cobra.Command {
	var o uploadOptions
	cmd := &cobra.Command{
		Use:   "upload FILE... | -",
		Short: "Upload files past the inventory",
		Long: `upload adds files to a knowledge base as new sources, up to 20 files or 32 MiB in a request. A source has the name of its file.
With - it reads the content of one from stdin, and --name names it.

It bypasses the inventory: kbsync does not know what was uploaded by hand, a sync will upload the same content once more,
and nothing can list, replace or remove it but a person in ReplyCX. Keep the ids that it prints. To upload for good, use kbsync sync.`,
		Example: `  kbsync api upload price-list.pdf --knowledge-base 876
  date | kbsync api upload - --name today.txt --knowledge-base 876 --emulator`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.apiUpload(cmd, o, args) },
	}
	cmd.Flags().Int64Var(&o.knowledgeBase, "knowledge-base", 0, "Id of the knowledge base.")
	cmd.Flags().StringVar(&o.name, "name", "", "Name of the source, of a single file or stdin.")
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "Do not ask.")
	return cmd
}

// A handFile is a file to be uploaded by hand.
type handFile struct {
	path string // as it was given
	name string
	size int64
	open func() (io.ReadCloser, error)
}

// An uploadedRow is a source that was created, with the API's names.
type uploadedRow struct {
	File          string  `json:"file"`
	ID            int64   `json:"id"`
	Type          string  `json:"type"`
	Name          string  `json:"name"`
	Status        string  `json:"status"`
	Errors        *string `json:"errors"`
	KnowledgeBase int64   `json:"knowledge_base_id"`
}

func (a *app) apiUpload(cmd *cobra.Command, o uploadOptions, args []string) (err error) {
	if len(args) == 0 {
		return usageError("name the files, or - to read one from stdin; write: " + cmd.UseLine())
	}
	if len(args) > 1 && slices.Contains(args, "-") {
		return usageError("- is stdin, and goes alone; upload the files with another command")
	}
	if o.name != "" && len(args) > 1 {
		return usageError("--name is for a single file; leave it out, and each source has its file's name")
	}
	cfg, err := a.load(cmd)
	if err != nil {
		return err
	}
	if o.knowledgeBase <= 0 {
		return usageError("which knowledge base? write --knowledge-base ID" + configuredBases(cfg))
	}
	files, cleanup, err := a.handFiles(cfg, o, args)
	defer func() { err = errors.Join(err, cleanup()) }()
	if err != nil {
		return err
	}
	if err := a.confirmUpload(cfg, o, len(files), slices.Contains(args, "-")); err != nil {
		return err
	}
	api, err := a.connectByHand(cmd.Context(), cfg, o.knowledgeBase)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, api.close()) }()
	ctx, cancel := a.signals.graceful(cfg.ShutdownGrace)
	defer cancel()

	rows, failure := a.sendFiles(ctx, api, o.knowledgeBase, files)
	var ids []string
	for _, r := range rows {
		ids = append(ids, strconv.FormatInt(r.ID, 10))
	}
	if len(rows) > 0 || failure == nil {
		if err := printRows(a.out, uploadedColumns(), slice(rows)); err != nil {
			// Nothing else knows the ids.
			return errors.Join(fmt.Errorf("print sources %s: %w", strings.Join(ids, " "), err), failure)
		}
	}
	if len(rows) > 0 {
		follow := "ID..."
		if len(rows) <= 10 {
			follow = strings.Join(ids, " ")
		}
		if a.useEmulator {
			follow += " --emulator"
		}
		a.out.note("how their training goes: kbsync api status %s", follow)
	}
	return failure
}

// configuredBases names the knowledge bases of the config, for one who left it out.
func configuredBases(cfg *config.Config) string {
	var ids []string
	for _, s := range cfg.Syncs {
		if id := strconv.FormatInt(s.KnowledgeBase, 10); !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return ""
	}
	return " (the config has " + strings.Join(ids, ", ") + ")"
}

// confirmUpload asks, unless it is the emulator that gets the sources.
func (a *app) confirmUpload(cfg *config.Config, o uploadOptions, n int, stdin bool) error {
	if a.useEmulator || o.yes {
		return nil
	}
	const warning = "a sync does not know what is uploaded by hand, so it uploads the same content once more, and the API cannot remove it"
	if stdin || !isTerminalInput(a.stdin) {
		return usageError("api upload bypasses the inventory: " + warning + "; say --yes to go on, try it with --emulator, or let kbsync sync upload")
	}
	fmt.Fprintf(a.out.stderr, "Upload %s to knowledge base %d of %s, past the inventory? %s. [y/N] ",
		count(n, "file"), o.knowledgeBase, printable(cfg.API.URL), strings.ToUpper(warning[:1])+warning[1:])
	answer, _ := bufio.NewReader(a.stdin).ReadString('\n')
	if !strings.HasPrefix(strings.ToLower(strings.TrimSpace(answer)), "y") {
		return &exitError{exitOther, errors.New("nothing was uploaded")}
	}
	return nil
}

// handFiles looks at the files before anything is sent, for what is sent cannot be taken back. What is on stdin is kept in a
// file until cleanup, because a request says beforehand how long it is.
func (a *app) handFiles(cfg *config.Config, o uploadOptions, args []string) (files []handFile, cleanup func() error, err error) {
	cleanup = func() error { return nil }
	for _, arg := range args {
		f := handFile{path: arg, name: filepath.Base(arg)}
		path := arg
		if arg == "-" {
			if o.name == "" {
				return files, cleanup, usageError("stdin has no name; write --name NAME for the source's, such as --name notes.md")
			}
			f.path = "stdin"
			var n int64
			if path, n, cleanup, err = a.spool(); err != nil {
				return files, cleanup, err
			}
			if n == 0 {
				return files, cleanup, usageError("stdin is empty, and a source of nothing would stay all the same; nothing was uploaded")
			}
		}
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return files, cleanup, &exitError{exitUsage, fmt.Errorf("%w; nothing was uploaded", err)}
		case info.IsDir():
			return files, cleanup, usageError(fmt.Sprintf("%s is a directory; name files, or upload it with kbsync sync", quoted(arg)))
		case !info.Mode().IsRegular():
			return files, cleanup, usageError(fmt.Sprintf("%s is no regular file; write - and give its content on stdin", quoted(arg)))
		case info.Size() == 0:
			return files, cleanup, usageError(fmt.Sprintf("%s is empty, and a source of nothing would stay all the same; nothing was uploaded", quoted(arg)))
		case isOwn(cfg, path, info):
			return files, cleanup, usageError(fmt.Sprintf("%s is kbsync's own (its config, state or token), and must not get into a knowledge base; nothing was uploaded", quoted(arg)))
		}
		if o.name != "" {
			f.name = o.name
		}
		f.size = info.Size()
		f.open = func() (io.ReadCloser, error) { return os.Open(path) }
		files = append(files, f)
	}
	return files, cleanup, nil
}

// spool copies stdin into a file of its own.
func (a *app) spool() (path string, n int64, remove func() error, err error) {
	f, err := os.CreateTemp("", "kbsync-stdin-*")
	if err != nil {
		return "", 0, func() error { return nil }, fmt.Errorf("read stdin: %w", err)
	}
	remove = func() error { return os.Remove(f.Name()) }
	n, err = io.Copy(f, a.stdin)
	if err = errors.Join(err, f.Close()); err != nil {
		err = fmt.Errorf("read stdin: %w", err)
	}
	return f.Name(), n, remove, err
}

// isOwn tells the files that are kbsync's, which a pattern of the shell may well have caught.
func isOwn(cfg *config.Config, path string, info os.FileInfo) bool {
	for _, own := range append(cfg.Private(), emulatorFile(cfg.State)) {
		if i, err := os.Stat(own); err == nil && os.SameFile(i, info) {
			return true
		}
	}
	abs, err := filepath.Abs(path)
	return err == nil && (strings.HasPrefix(abs, cfg.State+"-") || strings.HasPrefix(abs, cfg.State+"."))
}

// sendFiles uploads in requests of a moderate size. It ends at the first failure, with the sources there are by then.
func (a *app) sendFiles(ctx context.Context, api *api, knowledgeBase int64, files []handFile) (rows []uploadedRow, err error) {
	sent := 0
	for _, n := range requests(files) {
		batch := files[sent : sent+n]
		parts := make([]replycx.Part, n)
		for i, f := range batch {
			parts[i] = replycx.Part{
				Field: "f" + strconv.Itoa(i+1), Filename: f.name, Size: f.size,
				Open: func(context.Context) (io.ReadCloser, error) { return f.open() },
			}
		}
		result, err := api.client.UploadSources(ctx, knowledgeBase, parts, &replycx.UploadOptions{
			// What is not yet complete at the first signal is given up, and then it is nowhere.
			Seal: func(context.Context) error { return a.signals.soft.Err() },
		})
		if err != nil {
			return rows, uploadFailure(err, batch, len(files)-sent-n)
		}
		sent += n
		var missing []string
		for i, f := range batch {
			for _, s := range result.Sources[parts[i].Field] {
				row := uploadedRow{File: f.path, ID: s.ID, Type: s.Type, Name: s.Name, Status: string(s.Status), KnowledgeBase: knowledgeBase}
				if s.Errors != "" {
					row.Errors = &s.Errors
				}
				rows = append(rows, row)
			}
			if slices.Contains(result.Missing, parts[i].Field) {
				missing = append(missing, quoted(f.path))
			}
		}
		if len(missing) > 0 {
			err = fmt.Errorf("the API's answer does not say what became of %s: look in ReplyCX before you upload it again", strings.Join(missing, ", "))
			return rows, &exitError{exitOther, &plainError{errors.Join(err, notSent(len(files)-sent))}}
		}
	}
	return rows, nil
}

// uploadFailure says what is known of the files of a request that failed, and of those that were to come after it.
func uploadFailure(err error, batch []handFile, left int) error {
	names := make([]string, len(batch))
	for i, f := range batch {
		names[i] = quoted(f.path)
	}
	list := strings.Join(names, ", ")
	if len(names) > 3 {
		list = fmt.Sprintf("%s and %s", names[0], count(len(names)-1, "more file"))
	}
	err = apiFailure(err, list)
	code := exitCode(err)
	switch {
	case isOneOf(context.Canceled)(err) && neverSent(err):
		err = fmt.Errorf("interrupted; nothing of this request was uploaded: %s", list)
	case is[*replycx.PartError](err):
		if p, _ := errors.AsType[*replycx.PartError](err); p.Index < len(batch) {
			err = fmt.Errorf("%s: %w; nothing of this request was uploaded: %s", printable(batch[p.Index].path), p.Err, list)
		}
	case neverSent(err):
		err = fmt.Errorf("%w; nothing of this request was uploaded: %s", err, list)
	}
	return &exitError{code, &plainError{errors.Join(err, notSent(left))}}
}

func notSent(left int) error {
	if left == 0 {
		return nil
	}
	return fmt.Errorf("%s after that: not uploaded", count(left, "more file"))
}

// requests divides files, in their order, into requests: how many there are in each.
func requests(files []handFile) []int {
	var counts []int
	var bytes int64
	for _, f := range files {
		last := len(counts) - 1
		if last < 0 || counts[last] == filesPerRequest || bytes+f.size > bytesPerRequest {
			counts, bytes = append(counts, 1), f.size
			continue
		}
		counts[last]++
		bytes += f.size
	}
	return counts
}

func uploadedColumns() []column[uploadedRow] {
	return []column[uploadedRow]{
		{"id", true, func(r uploadedRow) string { return strconv.FormatInt(r.ID, 10) }},
		{"type", true, func(r uploadedRow) string { return r.Type }},
		{"status", true, func(r uploadedRow) string { return r.Status }},
		{"name", true, func(r uploadedRow) string { return r.Name }},
		{"file", true, func(r uploadedRow) string { return r.File }},
		{"errors", true, func(r uploadedRow) string {
			if r.Errors == nil {
				return ""
			}
			return *r.Errors
		}},
	}
}
