package cloudtest

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// BenchmarkUnchangedS3 compares a sync of 100,000 unchanged objects with the fastest comparison of a directory with the bucket by
// rclone. Both run alternately, and the results are the medians of the wall times and the highest peaks. Without rclone kbsync runs
// alone. BENCH_OBJECTS sets another number of objects.
func BenchmarkUnchangedS3(b *testing.B) {
	objects := 100_000
	if text := os.Getenv("BENCH_OBJECTS"); text != "" {
		var err error
		if objects, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	at := slices.IndexFunc(clouds, func(c *cloud) bool { return c.name == "s3" })
	if at < 0 {
		b.Fatal(missingServers)
	}
	s := newSyncFixture(b, clouds[at])
	s.proxy.addr = s.cloud.addr // without the proxy
	dir := b.TempDir()
	written := time.Now().Add(-time.Hour)
	group, ctx := errgroup.WithContext(b.Context())
	group.SetLimit(16)
	for i := range objects {
		key := fmt.Sprintf("dir%02d/sub%02d/document-%06d.md", i/2000, i/25%80, i)
		content := fmt.Sprintf("document %d\n%s", i, strings.Repeat("x", 1000))
		group.Go(func() error {
			path := filepath.Join(dir, filepath.FromSlash(key))
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return err
			}
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				return err
			}
			// Older than the object; otherwise rclone compares more.
			if err := os.Chtimes(path, written, written); err != nil {
				return err
			}
			return s.Put(ctx, folder+key, strings.NewReader(content))
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	if r := s.sync(0, "--batch-documents", "100").Syncs[0]; r.Uploaded != objects {
		b.Fatalf("%+v", r)
	}
	b.Logf("first sync of %d objects: %v, %d MiB", objects, time.Since(start).Round(time.Millisecond), s.peak>>20)

	rclone := program("rclone")
	if rclone == "" {
		b.Log("rclone is not installed: go install github.com/rclone/rclone@v1.76.0")
	}
	type series struct {
		took []float64 // seconds
		peak int64
	}
	var ours, theirs series
	add := func(to *series, run func() int64) {
		start := time.Now()
		peak := run()
		to.took = append(to.took, time.Since(start).Seconds())
		to.peak = max(to.peak, peak)
	}
	for b.Loop() {
		add(&ours, func() int64 {
			if r := s.sync(0).Syncs[0]; r.Unchanged != objects {
				b.Fatalf("%+v", r)
			}
			return s.peak
		})
		if rclone == "" {
			continue
		}
		add(&theirs, func() int64 { return s.rclone(b.Context(), rclone, dir) })
	}
	report := func(name string, of series) float64 {
		slices.Sort(of.took)
		median := of.took[len(of.took)/2]
		b.Logf("%s: %.2f s of %.2f", name, median, of.took)
		b.ReportMetric(median, name+"-s")
		b.ReportMetric(float64(of.peak)/(1<<20), name+"-peak-MiB")
		return median
	}
	b.ReportMetric(0, "ns/op")
	kbsync := report("kbsync", ours)
	if rclone != "" {
		b.ReportMetric(kbsync/cmp.Or(report("rclone", theirs), 1), "ratio")
	}
}

// BenchmarkUnchangedMillion measures syncs of 10,000 and of 1,000,000 unchanged objects. The objects are generated and have equal
// contents: the state of one document is multiplied.
func BenchmarkUnchangedMillion(b *testing.B) {
	var fewTook float64
	var fewPeak int64
	for _, objects := range []int{10_000, 1_000_000} {
		b.Run(strconv.Itoa(objects), func(b *testing.B) {
			m := &uniformBucket{objects: 1}
			server := httptest.NewServer(m)
			defer server.Close()
			s := newSyncFixture(b, &cloud{
				name: "uniformBucket", addr: server.Listener.Addr().String(),
				url: func(addr, bucket string) string {
					return "s3://" + bucket + "?use_path_style=true&region=x&endpoint=http://" + addr
				},
				env: func(string) []string {
					return []string{"AWS_ACCESS_KEY_ID=" + s3Key, "AWS_SECRET_ACCESS_KEY=" + s3Secret}
				},
				isList: func(string, string) bool { return false },
				client: func(context.Context, string) (writer, error) { return nil, nil },
			})
			s.proxy.addr = s.cloud.addr
			if r := s.sync(0).Syncs[0]; r.Uploaded != 1 {
				b.Fatalf("%+v", r)
			}
			s.multiply(m.key, objects)
			m.objects = objects
			var took []float64
			var peak int64
			for b.Loop() {
				start := time.Now()
				if r := s.sync(0).Syncs[0]; r.Unchanged != objects {
					b.Fatalf("%+v", r)
				}
				took = append(took, time.Since(start).Seconds())
				peak = max(peak, s.peak)
			}
			slices.Sort(took)
			median := took[len(took)/2]
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median, "s")
			b.ReportMetric(float64(peak)/(1<<20), "peak-MiB")
			if fewPeak == 0 {
				fewTook, fewPeak = median/float64(objects), peak
				return
			}
			b.ReportMetric(median/float64(objects)/fewTook, "time-ratio")
			b.ReportMetric(float64(peak)/float64(fewPeak), "peak-ratio")
		})
	}
}

// multiply turns a state with one document into a state with many documents of the same content, by an export and an import.
func (s *syncFixture) multiply(key func(int) string, documents int) {
	s.Helper()
	path, err := kbsync()
	if err != nil {
		s.Fatal(err)
	}
	out, err := exec.CommandContext(s.Context(), path, "state", "export", "--state", s.state).Output()
	if err != nil {
		s.Fatal(err)
	}
	s.state = filepath.Join(s.TempDir(), "kbsync.db")
	load := exec.CommandContext(s.Context(), path, "state", "import", "-", "--state", s.state)
	in, err := load.StdinPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := load.Start(); err != nil {
		s.Fatal(err)
	}
	write := bufio.NewWriter(in)
	encoder := json.NewEncoder(write)
	rows := 0
	for line := range bytes.Lines(out) {
		var record struct {
			Version int            `json:"kbsync_state,omitempty"`
			Table   string         `json:"table,omitempty"`
			Row     map[string]any `json:"row,omitempty"`
			Rows    int            `json:"rows,omitempty"`
		}
		decoder := json.NewDecoder(bytes.NewReader(line))
		decoder.UseNumber()
		if err := decoder.Decode(&record); err != nil {
			s.Fatal(err)
		}
		copies := 1
		if record.Table == "documents" {
			copies = documents
		}
		if record.Table != "" {
			rows += copies
		} else if record.Rows > 0 {
			record.Rows = rows
		}
		for i := range copies {
			if record.Table == "documents" {
				record.Row["id"], record.Row["key"] = i+1, strings.TrimPrefix(key(i), folder)
			}
			if err := encoder.Encode(record); err != nil {
				s.Fatal(err)
			}
		}
	}
	if err := errors.Join(write.Flush(), in.Close(), load.Wait()); err != nil {
		s.Fatal(err)
	}
}

// A uniformBucket is an S3 server with generated objects of equal content.
type uniformBucket struct{ objects int }

func (*uniformBucket) key(i int) string {
	return fmt.Sprintf("%s%05d/document-%08d.md", folder, i/100, i)
}

func (m *uniformBucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const content = "the same in each\n"
	const tag = "0123456789abcdef0123456789abcdef"
	query := r.URL.Query()
	if query.Get("list-type") == "" {
		w.Header().Set("ETag", `"`+tag+`"`)
		fmt.Fprint(w, content)
		return
	}
	begin := 0
	if token := query.Get("continuation-token"); token != "" {
		begin, _ = strconv.Atoi(token)
	} else if after := query.Get("start-after"); after != "" {
		begin = sort.Search(m.objects, func(i int) bool { return m.key(i) > after })
	}
	end := min(begin+1000, m.objects)
	if query.Get("prefix") != folder { // the ignore file
		end = begin
	}
	out := bufio.NewWriter(w)
	defer out.Flush()
	fmt.Fprintf(out, `<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>b</Name><IsTruncated>%t</IsTruncated>`, end > begin && end < m.objects)
	fmt.Fprintf(out, `<NextContinuationToken>%d</NextContinuationToken>`, end)
	for i := begin; i < end; i++ {
		fmt.Fprintf(out, `<Contents><Key>%s</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;%s&quot;</ETag><Size>%d</Size></Contents>`,
			m.key(i), tag, len(content))
	}
	fmt.Fprint(out, `</ListBucketResult>`)
}

// rclone compares a directory with the bucket at the lowest cost.
func (s *syncFixture) rclone(ctx context.Context, path, dir string) (peak int64) {
	s.Helper()
	cmd := exec.CommandContext(ctx, path, "sync", dir, ":s3:"+s.bucket+"/"+folder, "--fast-list", "--use-server-modtime", "--update", "--error-on-no-transfer")
	cmd.Env = append(os.Environ(), "RCLONE_CONFIG="+os.DevNull, "RCLONE_S3_PROVIDER=Other", "RCLONE_S3_ENDPOINT=http://"+s.cloud.addr,
		"RCLONE_S3_REGION=us-east-1", "RCLONE_S3_ACCESS_KEY_ID="+s3Key, "RCLONE_S3_SECRET_ACCESS_KEY="+s3Secret)
	peak, err := runMeasured(cmd)
	const noTransfer = 9
	if !isExit(err) || cmd.ProcessState.ExitCode() != noTransfer {
		s.Fatalf("rclone found differences: %v", err)
	}
	return peak
}
