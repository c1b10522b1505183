package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestWorkflowLinesParse parses each line of the workflow for GitHub Actions that runs kbsync, with a config as it expects one.
// internal/deploytest checks its syntax.
func TestWorkflowLinesParse(t *testing.T) {
	t.Parallel()
	workflow := documents(t, filepath.Join(examples, "github", "knowledge-base.yaml"))[0]
	files := map[string][]byte{"kbsync.yaml": []byte("syncs: [{name: docs, root: docs, knowledge_base: 876}]\n")}
	written, applied := "", ""
	tokens := map[string]bool{}
	for name, job := range at(workflow, "jobs").(map[string]any) {
		for _, step := range list(at(job, "steps")) {
			for row := range strings.Lines(fmt.Sprint(at(step, "run"))) {
				for _, l := range ofKbsync("knowledge-base.yaml", row, false) {
					if _, err := parseWith(l.argv, files); err != nil {
						t.Errorf("kbsync %s: %v", strings.Join(l.argv, " "), err)
					}
					_, cmd, args, err := parseOnly(l.argv, false)
					switch {
					case err != nil:
						t.Error(err)
					case cmd.Name() == "plan":
						written = cmd.Flags().Lookup("out").Value.String()
					case cmd.Name() == "apply":
						applied = args[0]
					}
					tokens[name] = at(step, "env", "REPLYCX_TOKEN") != nil
				}
			}
		}
	}
	if written == "" || written != applied {
		t.Errorf("plan writes %q and apply reads %q", written, applied)
	}
	if tokens["plan"] || !tokens["apply"] {
		t.Errorf("only apply needs the token: %v", tokens)
	}
}
