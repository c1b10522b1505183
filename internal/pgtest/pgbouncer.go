package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// portTaken reports whether a log says that another program listens on the port.
func portTaken(log []byte) bool {
	return bytes.Contains(log, []byte("could not create any TCP/IP sockets")) || bytes.Contains(log, []byte("cannot listen"))
}

// PgBouncer starts a pooler in front of the server of the URL, and returns the URL that leads through it. Each transaction
// may get another connection to the server. The pooler ends with the test.
func PgBouncer(tb testing.TB, to string) string {
	tb.Helper()
	program, err := findPgBouncer()
	failOrSkip(tb, err)
	dir, err := makeDir()
	failOrSkip(tb, err)
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	u, err := url.Parse(to)
	failOrSkip(tb, err)
	port, err := freePort()
	failOrSkip(tb, err)
	users, config := filepath.Join(dir, "users"), filepath.Join(dir, "config")
	text := fmt.Sprintf(`[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = transaction
max_client_conn = 500
default_pool_size = 20
`, u.Hostname(), u.Port(), port, users)
	for path, text := range map[string]string{users: fmt.Sprintf("%q \"\"\n", superuser), config: text} {
		failOrSkip(tb, errors.Join(os.WriteFile(path, []byte(text), 0o600), giveAway(path)))
	}
	cmd := exec.Command(program, config)
	cmd.Dir = dir
	s := &Server{dir: dir}
	failOrSkip(tb, s.begin(cmd))
	tb.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // it was killed
	})
	u.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	failOrSkip(tb, waitUntil(ctx, s.log(), func() error { return execute(u.String()+"&default_query_exec_mode=exec", `SELECT 1`) }))
	return u.String()
}

func findPgBouncer() (string, error) {
	if path, err := exec.LookPath("pgbouncer"); err == nil {
		return path, nil
	}
	// Debian keeps it out of the PATH of users.
	const path = "/usr/sbin/pgbouncer"
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return "", missingError{"PgBouncer"}
}
