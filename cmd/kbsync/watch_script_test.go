package main

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kbsync/kbsync/state"
)

// hookProgram is a hook. It appends its variables and its standard input to the file in its argument.
func hookProgram() {
	body, err := io.ReadAll(os.Stdin)
	if err != nil || len(os.Args) != 2 {
		os.Exit(1)
	}
	f, err := os.OpenFile(os.Args[1], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		os.Exit(1)
	}
	if _, err := f.WriteString(os.Getenv("KBHOOK_EVENT") + " " + os.Getenv("KBHOOK_SYNC") + " " + string(body) + "\n"); err != nil {
		os.Exit(1)
	}
}

// freePort returns a port that no process listens on. It is below the ports that the kernel gives to a server which asks for any
// port, so that no other server of a test takes it first.
func freePort() (string, error) {
	var failed error
	for range 100 {
		port := strconv.Itoa(15000 + rand.IntN(15000))
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
		if err == nil {
			return port, l.Close()
		}
		failed = err
	}
	return "", failed
}

// cmdUntil runs a command until its standard output matches.
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: until pattern command [args...]")
	}
	pattern, err := regexp.Compile(args[0])
	ts.Check(err)
	poll(ts, args[0], func() bool {
		err := ts.Exec(args[1], args[2:]...)
		return err == nil && pattern.MatchString(ts.ReadFile("stdout")) != neg
	})
}

// cmdSealed waits until a request in the journal of a state waits for its answer.
func cmdSealed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sealed state")
	}
	poll(ts, args[0], func() bool {
		store, err := state.Open(context.Background(), state.Options{Path: ts.MkAbs(args[0]), ReadOnly: true})
		if err != nil {
			return false // the program still makes it
		}
		defer store.Close()
		batches, err := store.Journal.Recent(context.Background(), 10)
		return err == nil && slices.ContainsFunc(batches, func(b state.Batch) bool { return b.State == state.BatchSealed })
	})
}

// cmdHTTP sends a request, with the token in a file if one is named. It checks the status of the answer and writes its body to http.out.
func cmdHTTP(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args) > 4 {
		ts.Fatalf("usage: http status method url [tokenfile]")
	}
	token := ""
	if len(args) == 4 {
		poll(ts, args[3], func() bool {
			_, err := os.Stat(ts.MkAbs(args[3]))
			return err == nil
		})
		token = strings.TrimSpace(ts.ReadFile(args[3]))
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	var status int
	var body []byte
	poll(ts, args[2], func() bool {
		req, err := http.NewRequest(args[1], args[2], nil)
		ts.Check(err)
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		status = resp.StatusCode
		body, err = io.ReadAll(resp.Body)
		return err == nil && (status == want || args[1] != http.MethodGet)
	})
	if status != want {
		ts.Fatalf("HTTP status %d, want %d: %s", status, want, body)
	}
	ts.Check(os.WriteFile(ts.MkAbs("http.out"), body, 0o600))
}

// cmdHold opens connections that send nothing, and holds them until the end of the script.
func cmdHold(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: hold n address")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	for range n {
		c, err := net.Dial("tcp", args[1])
		ts.Check(err)
		ts.Defer(func() { c.Close() })
	}
}

// cmdSignal sends a signal to the process that holds the lock of a sync.
func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: signal name")
	}
	locks, err := filepath.Glob(filepath.Join(ts.Getenv("WORK"), "*.lock"))
	ts.Check(err)
	for _, path := range locks {
		fields := strings.Fields(ts.ReadFile(path))
		if len(fields) < 2 {
			continue
		}
		pid, err := strconv.Atoi(fields[1])
		ts.Check(err)
		// The lock file still names its last process after the lock was released.
		if sendSignal(pid, args[0]) == nil {
			return
		}
	}
	ts.Fatalf("no process holds a lock")
}
