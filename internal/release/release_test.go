package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPackageVersion(t *testing.T) {
	t.Parallel()
	const at = "20261126120253"
	for _, test := range []struct{ version, debian, alpine string }{
		{"v1.2.3", "1.2.3", "1.2.3"},
		{"v1.2.3-rc.1", "1.2.3~rc1", "1.2.3_rc1"},
		{"v1.2.3-beta2", "1.2.3~beta2", "1.2.3_beta2"},
		{"v1.2.3-14-g6f74ac3", "1.2.3+14.g6f74ac3", "1.2.3_p" + at},
		{"v1.2.3-14-g6f74ac3-dirty", "1.2.3+14.g6f74ac3.dirty", "1.2.3_p" + at},
		{"6f74ac3-dirty", "0.0.0+6f74ac3.dirty", "0.0.0_p" + at},
		{"dev", "0.0.0+dev", "0.0.0_p" + at},
	} {
		for format, want := range map[string]string{"deb": test.debian, "rpm": test.debian, "apk": test.alpine} {
			if got := packageVersion(test.version, format, at); got != want {
				t.Errorf("%s as %s: %s, want %s", test.version, format, got, want)
			}
		}
	}
	dpkg, err := exec.LookPath("dpkg")
	if err != nil {
		return
	}
	inOrder := []string{"6f74ac3", "v1.2.3-rc.1", "v1.2.3", "v1.2.3-14-g6f74ac3", "v1.2.4-rc.1", "v1.2.4", "v1.10.0"}
	for i := range len(inOrder) - 1 {
		older, newer := packageVersion(inOrder[i], "deb", at), packageVersion(inOrder[i+1], "deb", at)
		if err := exec.CommandContext(t.Context(), dpkg, "--compare-versions", older, "lt", newer).Run(); err != nil {
			t.Errorf("dpkg does not take %s for older than %s: %v", older, newer, err)
		}
	}
}

func TestPackagedUnits(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"kbsync.service", "kbsync-sync.service", "kbsync-sync.timer"} {
		text, err := os.ReadFile(filepath.Join("../../examples/systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		unit, err := packagedUnit(name, string(text))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(unit, "/usr/local") || strings.Contains(unit, "useradd") || strings.Count(unit, "[Unit]\n") != 1 {
			t.Errorf("%s:\n%s", name, unit)
		}
		if strings.HasSuffix(name, ".service") && !strings.Contains(unit, "\nExecStart=/usr/bin/kbsync ") {
			t.Errorf("%s does not start /usr/bin/kbsync", name)
		}
	}
	if _, err := packagedUnit("a", "[Service]\n"); err == nil {
		t.Error("a unit without [Unit] is accepted")
	}
}

// TestFormula writes the formula for invented archives and checks it with ruby, if it is installed.
func TestFormula(t *testing.T) {
	t.Parallel()
	r := release{version: "v1.2.3", time: time.Unix(1, 0), out: t.TempDir()}
	var programs []program
	sums := map[string]string{}
	for _, system := range []string{"linux", "darwin", "windows"} {
		for _, arch := range []string{"amd64", "arm64"} {
			p := program{system, arch, ""}
			programs = append(programs, p)
			if system == "windows" {
				continue
			}
			archive := filepath.Join(r.out, r.name(p, ".tar.gz"))
			if err := os.WriteFile(archive, []byte(system+arch), 0o600); err != nil {
				t.Fatal(err)
			}
			sum, err := checksum(archive)
			if err != nil {
				t.Fatal(err)
			}
			sums[r.name(p, ".tar.gz")] = sum
		}
	}
	if err := r.writeFormula(programs); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(r.out, "kbsync.rb")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, sum := range sums {
		if !strings.Contains(string(text), "/v1.2.3/"+name+"\"\n      sha256 \""+sum+"\"\n") {
			t.Errorf("the formula lacks %s with its checksum", name)
		}
	}
	if ruby, err := exec.LookPath("ruby"); err == nil {
		if out, err := exec.CommandContext(t.Context(), ruby, "-c", file).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	// Without all four archives there is no formula.
	few := release{version: r.version, out: t.TempDir()}
	if err := os.WriteFile(filepath.Join(few.out, r.name(programs[0], ".tar.gz")), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := few.writeFormula(programs[:1]); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(few.out, "kbsync.rb")); err == nil {
		t.Error("a formula with one archive")
	}
}
