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
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/replycx"
)

// The largest request of api upload.
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
		Short: "Upload files without recording them in the inventory",
		Long: `upload adds files to a knowledge base as new sources, up to 20 files or 32 MiB in a request. A source has the name of its file.
With - it reads the content of one source from stdin, and --name names the source.

upload bypasses the inventory: a sync does not know these sources and uploads the same content again. Only a person in ReplyCX can
list, replace or remove them, so keep the printed ids. To upload files permanently, use kbsync sync.`,
		Example: `  kbsync api upload price-list.pdf --knowledge-base 876
  date | kbsync api upload - --name today.txt --knowledge-base 876 --emulator`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.apiUpload(cmd, o, args) },
	}
	cmd.Flags().Int64Var(&o.knowledgeBase, "knowledge-base", 0, "Id of the knowledge base.")
	cmd.Flags().StringVar(&o.name, "name", "", "Name of the source, for a single file or stdin.")
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "Do not ask for confirmation.")
	return cmd
}

// A handFile is a file to upload by hand.
type handFile struct {
	path string // as in the argument
	name string
	size int64
	open func() (io.ReadCloser, error)
}

// An uploadedRow is a created source, with the API's names.
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
		return usageError("the files are missing; usage: " + cmd.UseLine())
	}
	if len(args) > 1 && slices.Contains(args, "-") {
		return usageError("- (stdin) must be the only argument; upload the files with another command")
	}
	if o.name != "" && len(args) > 1 {
		return usageError("--name allows a single file; without it each source has its file's name")
	}
	cfg, err := a.load(cmd)
	if err != nil {
		return err
	}
	if o.knowledgeBase <= 0 {
		return usageError("--knowledge-base ID is required" + configuredBases(cfg))
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
			// The ids exist nowhere else.
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
		a.out.note("to see the training status: kbsync api status %s", follow)
	}
	return failure
}

// configuredBases lists the knowledge bases of the config for an error message.
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

// confirmUpload asks for confirmation, unless the emulator gets the sources or --yes is set.
func (a *app) confirmUpload(cfg *config.Config, o uploadOptions, n int, stdin bool) error {
	if a.useEmulator || o.yes {
		return nil
	}
	const warning = "a sync does not know these sources and uploads the same content again, and the API cannot remove them"
	if stdin || !isTerminalInput(a.stdin) {
		return usageError("api upload bypasses the inventory: " + warning + "; add --yes to confirm, try it with --emulator, or use kbsync sync")
	}
	fmt.Fprintf(a.out.stderr, "Upload %s to knowledge base %d of %s without the inventory? %s. [y/N] ",
		count(n, "file"), o.knowledgeBase, printable(cfg.API.URL), strings.ToUpper(warning[:1])+warning[1:])
	answer, _ := bufio.NewReader(a.stdin).ReadString('\n')
	if !strings.HasPrefix(strings.ToLower(strings.TrimSpace(answer)), "y") {
		return engine.WithClass(engine.ClassOther, errors.New("nothing was uploaded"))
	}
	return nil
}

// handFiles checks all files before the first upload, because an upload cannot be undone. It copies stdin to a temporary
// file, because a request begins with its length; cleanup removes that file.
func (a *app) handFiles(cfg *config.Config, o uploadOptions, args []string) (files []handFile, cleanup func() error, err error) {
	cleanup = func() error { return nil }
	for _, arg := range args {
		f := handFile{path: arg, name: filepath.Base(arg)}
		path := arg
		if arg == "-" {
			if o.name == "" {
				return files, cleanup, usageError("--name NAME is required with stdin, such as --name notes.md")
			}
			f.path = "stdin"
			var n int64
			if path, n, cleanup, err = a.spool(); err != nil {
				return files, cleanup, err
			}
			if n == 0 {
				return files, cleanup, usageError("stdin is empty; nothing was uploaded")
			}
		}
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return files, cleanup, engine.WithClass(engine.ClassUsage, fmt.Errorf("%w; nothing was uploaded", err))
		case info.IsDir():
			return files, cleanup, usageError(fmt.Sprintf("%s is a directory; list its files, or use kbsync sync", quoted(arg)))
		case !info.Mode().IsRegular():
			return files, cleanup, usageError(fmt.Sprintf("%s is not a regular file; use - and send its content to stdin", quoted(arg)))
		case info.Size() == 0:
			return files, cleanup, usageError(fmt.Sprintf("%s is empty; nothing was uploaded", quoted(arg)))
		case isOwn(cfg, path, info):
			return files, cleanup, usageError(fmt.Sprintf("%s belongs to kbsync (config, state or token) and must not be uploaded; nothing was uploaded", quoted(arg)))
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

// spool copies stdin to a temporary file.
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

// isOwn reports whether the file belongs to kbsync. A pattern of the shell may have matched it by accident.
func isOwn(cfg *config.Config, path string, info os.FileInfo) bool {
	for _, own := range append(cfg.Private(), emulatorFile(cfg.State)) {
		if i, err := os.Stat(own); err == nil && os.SameFile(i, info) {
			return true
		}
	}
	abs, err := filepath.Abs(path)
	return err == nil && (strings.HasPrefix(abs, cfg.State+"-") || strings.HasPrefix(abs, cfg.State+"."))
}

// sendFiles uploads the files in several requests. It stops at the first failure and returns the sources created so far.
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
			// The first signal abandons an incomplete request; then it creates no source.
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
			err = fmt.Errorf("the API's answer has no source for %s: check in ReplyCX before you upload it again", strings.Join(missing, ", "))
			return rows, engine.WithClass(engine.ClassOther, &plainError{errors.Join(err, notSent(len(files)-sent))})
		}
	}
	return rows, nil
}

// uploadFailure describes the outcome for the files of a failed request. left counts the files after them.
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
	class := engine.Classify(err)
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
	return engine.WithClass(class, &plainError{errors.Join(err, notSent(left))})
}

func notSent(left int) error {
	if left == 0 {
		return nil
	}
	return fmt.Errorf("%s after that: not uploaded", count(left, "more file"))
}

// requests divides files, in order, into requests and returns the number of files in each.
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
