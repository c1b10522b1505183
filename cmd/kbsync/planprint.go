package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
)

// planProgress is the progress of a plan; its bars would overwrite results.
type planProgress = progress

// planPrinter returns the function that prints the actions as they are found, in the format text.
func (a *app) planPrinter() func(*planProgress, planItem) {
	return func(progress *planProgress, item planItem) {
		if a.out.Format != console.FormatText || a.out.Quiet {
			return
		}
		progress.End()
		text := fmt.Sprintf("%-10s %s", item.Action, console.Printable(item.Key))
		if item.Reason != "" {
			text += " (" + console.Printable(item.Reason) + ")"
		}
		fmt.Fprintln(a.out.Stdout, text)
	}
}

// printPlan prints a plan; in the format text only its sums.
func (a *app) printPlan(p *planFile) error {
	switch a.out.Format {
	case console.FormatJSON:
		return a.printPlanJSON(p)
	case console.FormatMarkdown:
		var b bytes.Buffer
		p.markdown(&b)
		_, err := a.out.Stdout.Write(b.Bytes())
		return err
	}
	return a.out.Result(p, p.text)
}

// printPlanJSON prints the documents of all syncs, a line each, and the sums of each sync.
func (a *app) printPlanJSON(p *planFile) error {
	if _, err := io.WriteString(a.out.Stdout, `{"documents": `); err != nil {
		return err
	}
	sums := []syncPlan{}
	err := console.PrintJSON(a.out, func(yield func(planItem, error) bool) {
		for _, s := range p.Syncs {
			for _, d := range s.Documents {
				if !yield(d, nil) {
					return
				}
			}
			sum := *s
			sum.Documents = nil
			sums = append(sums, sum)
		}
	})
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(sums, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out.Stdout, ", \"syncs\": %s}\n", data)
	return err
}

// text writes the sums of each sync.
func (p *planFile) text(w io.Writer) {
	for _, s := range p.Syncs {
		if s.Error != "" && len(s.Documents) == 0 {
			continue
		}
		fmt.Fprintf(w, "%s: would upload %d (%s), share %d, remove %d", console.Printable(s.Sync), s.Upload, console.Bytes(s.Bytes), s.Share, s.Remove)
		if s.Resaved > 0 {
			fmt.Fprintf(w, "; resaved, skipped %d", s.Resaved)
		}
		if s.Block > 0 {
			fmt.Fprintf(w, "; block %d", s.Block)
		}
		if len(s.Skipped) > 0 {
			fmt.Fprintf(w, "; skipped %s", reasons(s.Skipped))
		}
		if s.Unsettled > 0 {
			fmt.Fprintf(w, "; %s still being written", console.Count(s.Unsettled, "document"))
		}
		fmt.Fprintf(w, "; %s\n", console.Count(s.Batches, "request"))
		s.printLeftOut(w)
		if len(s.LeftBehind) > 0 {
			fmt.Fprintf(w, "%s: would leave behind %s:", console.Printable(s.Sync), console.Count(len(s.LeftBehind), "source"))
			for _, l := range s.LeftBehind[:min(len(s.LeftBehind), 20)] {
				fmt.Fprintf(w, " %d (%s, %s)", l.Source, console.Printable(l.Document), l.Why)
			}
			if more := len(s.LeftBehind) - 20; more > 0 {
				fmt.Fprintf(w, " and %d more", more)
			}
			fmt.Fprintln(w)
		}
	}
}

// markdownRows bounds the rows of a table: a comment on GitHub has at most 65,536 characters.
const markdownRows = 100

// markdown writes the plan for a comment on a pull request.
func (p *planFile) markdown(w io.Writer) {
	fmt.Fprintln(w, "### Plan of kbsync")
	for _, s := range p.Syncs {
		fmt.Fprintf(w, "\n**%s**: %s to knowledge base %d\n", console.Markdown(s.Sync), console.Markdown(s.Root), s.Destination.KnowledgeBase)
		if s.Error != "" {
			fmt.Fprintf(w, "\n> **This plan cannot be applied.** %s\n", console.Markdown(s.Error))
		}
		fmt.Fprintf(w, "\n| upload | bytes | requests | share a source | remove | unchanged | sources left behind |\n|---|---|---|---|---|---|---|\n"+
			"| %d | %s | %d | %d | %d | %d | %d |\n", s.Upload, console.Bytes(s.Bytes), s.Batches, s.Share, s.Remove, s.Unchanged, len(s.LeftBehind))
		s.markdownLeftOut(w)
		for _, group := range []struct {
			title string
			is    []engine.Action
		}{
			{"Uploads: each is permanent", []engine.Action{engine.ActionUpload}},
			{"Share a source that is there", []engine.Action{engine.ActionShare}},
			{"Removed from the root", []engine.Action{engine.ActionRemove}},
			{"Left out", []engine.Action{engine.ActionResaved, engine.ActionBlock, engine.ActionSkip, engine.ActionFail, engine.ActionUnreadable}},
		} {
			var rows [][]string
			for _, d := range s.Documents {
				if slices.Contains(group.is, engine.Action(d.Action)) {
					rows = append(rows, []string{console.Markdown(d.Key), console.Bytes(d.Size), d.Reason})
				}
			}
			markdownTable(w, group.title, []string{"document", "size", "why"}, rows)
		}
		if len(s.Skipped) > 0 {
			fmt.Fprintf(w, "\nSkipped in all: %s\n", console.Markdown(reasons(s.Skipped)))
		}
		var rows [][]string
		for _, l := range s.LeftBehind {
			rows = append(rows, []string{fmt.Sprint(l.Source), console.Markdown(l.Document), l.Why})
		}
		markdownTable(w, "Sources left behind: they keep answering until a person removes them in ReplyCX", []string{"source", "document", "why"}, rows)
	}
}

// markdownTable writes a table that opens on a click. The last column is text that needs an escape.
func markdownTable(w io.Writer, title string, columns []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(w, "\n<details><summary>%s (%d)</summary>\n\n| %s | %s | %s |\n|---|---|---|\n", title, len(rows), columns[0], columns[1], columns[2])
	for _, r := range rows[:min(len(rows), markdownRows)] {
		why := ""
		if r[2] != "" {
			why = console.Markdown(r[2])
		}
		fmt.Fprintf(w, "| %s | %s | %s |\n", r[0], r[1], why)
	}
	if more := len(rows) - markdownRows; more > 0 {
		fmt.Fprintf(w, "\n%d more are not shown.\n", more)
	}
	fmt.Fprintln(w, "\n</details>")
}
