package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The keys of the S3 server of the run.
const s3Key, s3Secret = "kbsync-bench", "kbsync-bench-secret"

// A server is a running server. It ends when stop is called, or with the harness.
type server struct {
	address string // host:port
	stop    func()
}

// serve starts a server of the peers. Its first line of output is its address.
func (h *harness) serve(ctx context.Context, args ...string) (*server, error) {
	cmd := exec.CommandContext(ctx, h.programs.peer, args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop := func() {
		in.Close()
		_ = cmd.Wait() // its end was asked for
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	return &server{strings.TrimSpace(line), stop}, nil
}

// An api is the server that parses and discards uploads.
type api struct{ *server }

// The settings and counts of the api, as package peer defines them.
type (
	settings struct {
		Delay    time.Duration `json:"delay"`
		Train    time.Duration `json:"train"`
		Arrivals bool          `json:"arrivals"`
	}
	counts struct {
		Uploads   int       `json:"uploads"`
		Statuses  int       `json:"statuses"`
		Documents int       `json:"documents"`
		Bytes     int64     `json:"bytes"`
		First     time.Time `json:"first"`
		Last      time.Time `json:"last"`
	}
)

func (h *harness) serveAPI(ctx context.Context) (*api, error) {
	s, err := h.serve(ctx, "serve")
	if err != nil {
		return nil, err
	}
	return &api{s}, nil
}

func (a *api) url() string { return "http://" + a.address }

// reset sets the counts to zero and changes the settings.
func (a *api) reset(ctx context.Context, s settings) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return ask(ctx, http.MethodPost, a.url()+"/bench/reset", data, &settings{})
}

func (a *api) counts(ctx context.Context) (c counts, err error) {
	err = ask(ctx, http.MethodGet, a.url()+"/bench/counts", nil, &c)
	return c, err
}

// arrival waits for a file and returns the time of its arrival.
func (a *api) arrival(ctx context.Context, name string) (at time.Time, err error) {
	err = ask(ctx, http.MethodGet, a.url()+"/bench/arrival?name="+url.QueryEscape(name), nil, &at)
	return at, err
}

// ask sends a request to a server of the peers, and decodes its answer unless result is nil.
func ask(ctx context.Context, method, url string, content []byte, result any) error {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(content))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", url, response.Status, answer)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer, result)
}

// serveS3 starts versitygw, a real S3 server, which keeps its buckets in directories.
func (h *harness) serveS3(ctx context.Context) (*server, error) {
	dir := filepath.Join(h.dir, "run", "s3")
	data, sidecar := filepath.Join(dir, "data"), filepath.Join(dir, "metadata")
	if err := errors.Join(os.MkdirAll(data, 0o700), os.MkdirAll(sidecar, 0o700)); err != nil {
		return nil, err
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := free.Addr().String()
	free.Close()
	cmd := exec.CommandContext(ctx, h.programs.versitygw, "--access", s3Key, "--secret", s3Secret, "--port", address, "--quiet",
		"posix", "--sidecar", sidecar, data)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop := func() {
		_ = cmd.Process.Kill() // it keeps nothing that is needed
		<-ended
	}
	for range 600 {
		select {
		case err := <-ended:
			return nil, fmt.Errorf("versitygw ended: %w\n%s", err, last(out.Bytes()))
		default:
		}
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return &server{address, stop}, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	stop()
	return nil, fmt.Errorf("versitygw does not listen at %s", address)
}
