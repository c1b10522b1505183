package deploytest

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rhysd/actionlint"
)

const workflowFile = "../../examples/github/knowledge-base.yaml"

// lintWorkflow returns what actionlint, which knows the syntax and the expressions of GitHub Actions, finds in a workflow.
func lintWorkflow(t *testing.T, data []byte) []*actionlint.Error {
	t.Helper()
	linter, err := actionlint.NewLinter(io.Discard, &actionlint.LinterOptions{WorkingDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	findings, err := linter.Lint(filepath.Base(workflowFile), data, nil)
	if err != nil {
		t.Fatal(err)
	}
	return findings
}

func TestWorkflowIsValid(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(workflowFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, finding := range lintWorkflow(t, data) {
		t.Error(finding)
	}
	// The linter finds mistakes: a job without a runner, an unknown context, and text of strangers in a script.
	for name, change := range map[string][2]string{
		"no runner": {"runs-on: ubuntu-24.04", ""},
		"context":   {"secrets.KBSYNC_STATE", "secret.KBSYNC_STATE"},
		"injection": {`gh pr comment "$NUMBER"`, `gh pr comment ${{ github.event.pull_request.title }}`},
	} {
		if broken := strings.Replace(string(data), change[0], change[1], 1); len(lintWorkflow(t, []byte(broken))) == 0 {
			t.Errorf("%s: actionlint finds nothing", name)
		}
	}
}
