package defects

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

// Every defect fits the code as it is, and its test exists.
func TestEachDefectHasItsPlaceAndItsTest(t *testing.T) {
	tests := map[string]string{} // the code of the tests of each package
	for _, d := range defects {
		text, err := os.ReadFile(filepath.Join(root, d.file))
		if err != nil {
			t.Errorf("%s: %v", d.name, err)
			continue
		}
		if n := strings.Count(string(text), d.old); n != 1 || d.new == d.old {
			t.Errorf("%s: %s has %d places for it, want 1", d.name, d.file, n)
		}
		if tests[d.pkg] == "" {
			tests[d.pkg] = testsOf(t, d.pkg)
		}
		if !strings.Contains(tests[d.pkg], "\nfunc "+d.test+"(t *testing.T) {") {
			t.Errorf("%s: package %s has no test %s", d.name, d.pkg, d.test)
		}
	}
}

func testsOf(t *testing.T, pkg string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

// Each defect turns its test red. With DEFECTS=all every defect is planted, and otherwise those whose test is built quickly.
func TestEachDefectTurnsItsTestRed(t *testing.T) {
	all := os.Getenv("DEFECTS") == "all"
	for _, d := range defects {
		if all || d.quick {
			t.Run(strings.ReplaceAll(d.name, " ", "_"), func(t *testing.T) {
				output, failed := d.plant(t)
				if line := "--- FAIL: " + d.test; !failed || !strings.Contains(output, line) {
					t.Errorf("%s in %s: %s of package %s did not fail:\n%s", d.name, d.file, d.test, d.pkg, output)
				}
			})
		}
	}
}

// plant runs the test of the defect with the defect in the code. The files of the module stay as they are.
func (d *defect) plant(t *testing.T) (output string, failed bool) {
	t.Helper()
	file, err := filepath.Abs(filepath.Join(root, d.file))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	changed, overlay := filepath.Join(dir, filepath.Base(d.file)), filepath.Join(dir, "overlay.json")
	write(t, changed, []byte(strings.Replace(string(text), d.old, d.new, 1)))
	replaced, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, overlay, replaced)
	args := append([]string{"test", "-count=1", "-timeout=5m", "-run=^" + d.test + "$", "./" + d.pkg}, d.flags...)
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = root
	// By the variable, the program that a test builds has the defect, too.
	cmd.Env = append(os.Environ(), "GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+overlay)
	out, err := cmd.CombinedOutput()
	return string(out), err != nil
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
