package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kbsync/kbsync/internal/pgtest"
)

func TestMain(m *testing.M) {
	testscript.Main(pgtest.Main(m), map[string]func(){
		"kbsync":      main,
		"kbsync-hook": hookProgram,
		// kbsync-token is a token_command: it prints its argument.
		"kbsync-token": func() {
			if len(os.Args) != 2 {
				os.Exit(1)
			}
			fmt.Println(os.Args[1])
		},
		"kbsync-clock": func() { fmt.Println(time.Now().Unix()) },
	})
}

// TestScripts runs the scripts in testdata/script, each a story of one user. Besides the commands of testscript, the scripts
// have these:
//
//	exits CODE kbsync ARG...   runs the program and fails if it ends with another code
//	load FILE                  waits for a file of export lines and sets their variables
//	await FILE TEXT            waits until a file contains the text
//	nowhere TEXT               fails if the last output or a file below $WORK, other than secret*, contains the text
//	noise DIR N                makes N small files of different content; unnoise DIR N removes the first N of them
//	oddnames DIR               makes files with hostile names
//	truncate DIR               empties the files of a directory; touch DIR changes their times
//	holds N                    fails if the emulator has accepted another number of sources
//	until PATTERN CMD ARG...   runs a command until its output matches
//	http CODE METHOD URL       sends a request and writes the body of the answer to http.out
//	signal NAME                sends a signal to the process that holds the lock of a sync
//	keep NAME REGEXP           sets a variable to the first group of an expression in the last output
//	$RESAVED                   a folder with documents of real programs that were saved again
//	sleep DURATION             gives a background process time to reach a point that no output shows
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("XDG_STATE_HOME", filepath.Join(env.WorkDir, ".state"))
			// The defaults suit people and would make the scripts slow.
			for _, v := range []string{"SETTLE=0s", "POLL_MIN=20ms", "POLL_MAX=100ms", "RATE=off"} {
				name, value, _ := strings.Cut(v, "=")
				env.Setenv("KBSYNC_"+name, value)
			}
			port, err := freePort()
			env.Setenv("PORT", port)
			resaved, absErr := filepath.Abs("../../internal/preflight/testdata/resaved")
			env.Setenv("RESAVED", resaved)
			return errors.Join(err, absErr)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    cmdExits,
			"load":     cmdLoad,
			"await":    cmdAwait,
			"nowhere":  cmdNowhere,
			"noise":    cmdNoise,
			"unnoise":  cmdUnnoise,
			"oddnames": cmdOddNames,
			"truncate": cmdTruncate,
			"touch":    cmdTouch,
			"holds":    cmdHolds,
			"keep":     cmdKeep,
			"sleep":    cmdSleep,
			"sealed":   cmdSealed,
			"until":    cmdUntil,
			"http":     cmdHTTP,
			"hold":     cmdHold,
			"signal":   cmdSignal,
		},
	})
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code command [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// poll calls done until it returns true, for at most 20 seconds.
func poll(ts *testscript.TestScript, what string, done func() bool) {
	for deadline := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(deadline) {
			ts.Fatalf("timeout while waiting for %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func cmdLoad(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: load file")
	}
	var data []byte
	poll(ts, args[0], func() bool {
		var err error
		data, err = os.ReadFile(ts.MkAbs(args[0]))
		return err == nil
	})
	for line := range strings.Lines(string(data)) {
		name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		if ok {
			ts.Setenv(name, value)
		}
	}
}

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await file text")
	}
	poll(ts, args[1], func() bool {
		data, err := os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && strings.Contains(string(data), args[1])
	})
}

func cmdNowhere(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: nowhere text")
	}
	text := []byte(args[0])
	if len(text) == 0 {
		ts.Fatalf("nowhere: the text is empty")
	}
	for _, stream := range []string{"stdout", "stderr"} {
		if strings.Contains(ts.ReadFile(stream), args[0]) {
			ts.Fatalf("%s has %q", stream, args[0])
		}
	}
	ts.Check(filepath.WalkDir(ts.Getenv("WORK"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), "secret") {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil && bytes.Contains(data, text) {
			ts.Fatalf("%s has %q", path, args[0])
		}
		return err
	}))
}

func cmdNoise(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: noise dir n")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	for i := range n {
		name := "doc" + strconv.Itoa(i) + ".md"
		ts.Check(os.WriteFile(filepath.Join(dir, name), []byte("the text of "+args[0]+"/"+name+"\n"), 0o600))
	}
}

func cmdUnnoise(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: unnoise dir n")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	for i := range n {
		ts.Check(os.Remove(filepath.Join(ts.MkAbs(args[0]), "doc"+strconv.Itoa(i)+".md")))
	}
}

func cmdOddNames(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: oddnames dir")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	for i, name := range []string{
		"quote\"s.md", "it's.md", "back\\slash.md", "line\nbreak.md", "carriage\r\nreturn: x.md", "\x1b[2Jclear.md", "rtl\u202egnp.md",
		"emoji \U0001F600.md", "-dash.md", "=formula.md", "spaces  .md", "100%.md", "a;b.md", strings.Repeat("n", 252) + ".md", "not\xff\xfeutf8.md",
		"two..dots.md", "CON.md", "ok.md", "status.md",
	} {
		ts.Check(os.WriteFile(filepath.Join(dir, name), []byte("odd "+strconv.Itoa(i)+"\n"), 0o600))
	}
}

func cmdKeep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: keep name regexp")
	}
	found := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(found) != 2 {
		ts.Fatalf("stdout does not match %s with one group", args[1])
	}
	ts.Setenv(args[0], found[1])
}

func cmdSleep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sleep duration")
	}
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	time.Sleep(d)
}
