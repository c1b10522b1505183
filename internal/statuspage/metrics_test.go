package statuspage

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/kbsync/kbsync/state"
)

// fed returns a page with a value in every metric. Some of the values are invalid.
func fed(t *testing.T) (*fixture, *Page) {
	t.Helper()
	f := newFixture(t)
	p := f.page(Options{Version: "v1.2.3"})
	f.put(f.sync("handbook"), []string{"a.md"})
	m := p.Metrics
	for _, end := range []state.BatchState{state.BatchAccepted, state.BatchRefused, state.BatchAbandoned, state.BatchUncertain, state.BatchOpen, "odd"} {
		m.BatchEnded("handbook", end)
	}
	m.BytesSent("handbook", 1000)
	m.BytesSent("handbook", -1)
	for _, status := range []int{200, 200, 413, 0, -5, 99999} {
		m.UploadRequest("handbook", status, 300*time.Millisecond)
		m.StatusRequest(status)
	}
	m.Retried("handbook")
	for outcome := range state.Outcome(9) {
		m.Trained(outcome, time.Minute)
	}
	m.MissedChanges("handbook", 3)
	m.MissedChanges("handbook", -3)
	m.Overflowed("handbook")
	m.Notified("handbook", Notifications{Taken: 2, Elsewhere: 1, Unknown: 1, Connections: 1, FailedAcks: 1, Connected: true, Held: 2})
	m.Notified("handbook", Notifications{Taken: 1, Held: 3})
	for _, guard := range append([]string{"", "odd\nguard"}, guards...) {
		m.GuardTripped("handbook", guard)
	}
	m.RestlessFiles("handbook", 2)
	m.Reloaded(true)
	m.Reloaded(false)
	return f, p
}

// docs/metrics.md must name every metric with its type, labels and values, and no other metric.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		kind, is string
		labels   []string
	}
	documented := map[string]row{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(kbsync_\\w+)` \\| (\\w+) \\| ([^|]*)\\| (.*) \\|$").FindAllStringSubmatch(string(text), -1) {
		labels := strings.FieldsFunc(m[3], func(r rune) bool { return r == ',' || r == ' ' })
		slices.Sort(labels)
		documented[m[1]] = row{m[2], m[4], labels}
	}
	for _, name := range regexp.MustCompile(`kbsync_\w+`).FindAllString(string(text), -1) {
		if _, ok := documented[name]; !ok && name != "kbsync_" {
			t.Errorf("%s is mentioned, but has no row", name)
		}
	}

	_, p := fed(t)
	if err := p.refreshMetrics(t.Context()); err != nil {
		t.Fatal(err)
	}
	families, err := prometheus.Gatherers{p.own, p.process}.Gather()
	if err != nil {
		t.Fatal(err)
	}
	exported := map[string]bool{}
	for _, f := range families {
		name := f.GetName()
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		exported[name] = true
		d, ok := documented[name]
		if !ok {
			t.Errorf("%s is exported and not documented", name)
			continue
		}
		if kind := strings.ToLower(f.GetType().String()); kind != d.kind {
			t.Errorf("%s is a %s, and documented as a %s", name, kind, d.kind)
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName())
				switch {
				case l.GetName() == "state" || l.GetName() == "code" && (name == "kbsync_guard_trips_total" || name == "kbsync_notifications_total"):
					if !regexp.MustCompile(`\b` + regexp.QuoteMeta(l.GetValue()) + `\b`).MatchString(d.is) {
						t.Errorf("%s: the value %q of %s is not documented", name, l.GetValue(), l.GetName())
					}
				case l.GetName() == "code" && !regexp.MustCompile(`^([1-5]\d\d|none)$`).MatchString(l.GetValue()):
					t.Errorf("%s: code %q", name, l.GetValue())
				}
			}
			slices.Sort(labels)
			if !slices.Equal(labels, d.labels) {
				t.Errorf("%s has the labels %v, and is documented with %v", name, labels, d.labels)
			}
		}
	}
	for name := range documented {
		if !exported[name] {
			t.Errorf("%s is documented and not exported", name)
		}
	}
	if len(exported) < 20 {
		t.Errorf("only %d metrics were looked at", len(exported))
	}
}

func TestMetricsPassPromlint(t *testing.T) {
	_, p := fed(t)
	problems, err := testutil.GatherAndLint(p.own)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	// The response of /metrics must pass too.
	body := get(t, p, "/metrics")
	problems, err = promlint.New(strings.NewReader(body)).Lint()
	problems = slices.DeleteFunc(problems, func(p promlint.Problem) bool { return !strings.HasPrefix(p.Metric, "kbsync_") })
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if !strings.Contains(body, "\ngo_goroutines ") || runtime.GOOS == "linux" && !strings.Contains(body, "\nprocess_resident_memory_bytes ") {
		t.Error("the metrics of the process are missing")
	}
}

func TestMetricsCountWork(t *testing.T) {
	_, p := fed(t)
	if err := p.refreshMetrics(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := `
# HELP kbsync_guard_trips_total Scans that a guard halted, by guard.
# TYPE kbsync_guard_trips_total counter
kbsync_guard_trips_total{code="destination",sync="handbook"} 1
kbsync_guard_trips_total{code="empty",sync="handbook"} 1
kbsync_guard_trips_total{code="empty-directory",sync="handbook"} 1
kbsync_guard_trips_total{code="lost-mount",sync="handbook"} 1
kbsync_guard_trips_total{code="lost-state",sync="handbook"} 1
kbsync_guard_trips_total{code="max-change",sync="handbook"} 1
kbsync_guard_trips_total{code="max-delete",sync="handbook"} 1
kbsync_guard_trips_total{code="max-uploads",sync="handbook"} 1
kbsync_guard_trips_total{code="new-mount",sync="handbook"} 1
kbsync_guard_trips_total{code="new-root",sync="handbook"} 1
kbsync_guard_trips_total{code="new-state",sync="handbook"} 1
kbsync_guard_trips_total{code="other",sync="handbook"} 2
# HELP kbsync_status_requests_total Requests for the training status of sources, by HTTP status.
# TYPE kbsync_status_requests_total counter
kbsync_status_requests_total{code="200"} 2
kbsync_status_requests_total{code="413"} 1
kbsync_status_requests_total{code="none"} 3
# HELP kbsync_upload_batches_total Upload batches by outcome.
# TYPE kbsync_upload_batches_total counter
kbsync_upload_batches_total{state="abandoned",sync="handbook"} 1
kbsync_upload_batches_total{state="accepted",sync="handbook"} 1
kbsync_upload_batches_total{state="refused",sync="handbook"} 1
kbsync_upload_batches_total{state="uncertain",sync="handbook"} 1
# HELP kbsync_upload_bytes_total Bytes of documents sent, including failed requests.
# TYPE kbsync_upload_bytes_total counter
kbsync_upload_bytes_total{sync="handbook"} 1000
# HELP kbsync_missed_changes_total Changes that a rescan found and no event had reported.
# TYPE kbsync_missed_changes_total counter
kbsync_missed_changes_total{sync="handbook"} 3
# HELP kbsync_notifications_total Messages of a bucket's notifications by the kind of object they name.
# TYPE kbsync_notifications_total counter
kbsync_notifications_total{code="elsewhere",sync="handbook"} 1
kbsync_notifications_total{code="taken",sync="handbook"} 3
kbsync_notifications_total{code="unknown",sync="handbook"} 1
# HELP kbsync_notification_connected Whether the broker of a bucket's notifications is connected.
# TYPE kbsync_notification_connected gauge
kbsync_notification_connected{sync="handbook"} 0
# HELP kbsync_notifications_held Received messages whose documents are not recorded yet.
# TYPE kbsync_notifications_held gauge
kbsync_notifications_held{sync="handbook"} 3
# HELP kbsync_config_last_reload_successful Whether the last load of the config succeeded.
# TYPE kbsync_config_last_reload_successful gauge
kbsync_config_last_reload_successful 0
`
	if err := testutil.GatherAndCompare(p.own, strings.NewReader(want), "kbsync_guard_trips_total", "kbsync_status_requests_total", "kbsync_upload_batches_total",
		"kbsync_upload_bytes_total", "kbsync_missed_changes_total", "kbsync_notifications_total", "kbsync_notification_connected", "kbsync_notifications_held", "kbsync_config_last_reload_successful"); err != nil {
		t.Error(err)
	}
	if at := testutil.ToFloat64(p.Metrics.reloadAt); time.Since(time.Unix(int64(at), 0)) > time.Minute {
		t.Errorf("reloaded at %v", at)
	}
}

// values returns the samples of one metric by their labels.
func values(t *testing.T, p *Page, name string) map[string]string {
	t.Helper()
	got := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^`+name+`\{(.*)\} (\S+)$`).FindAllStringSubmatch(get(t, p, "/metrics"), -1) {
		got[strings.ReplaceAll(m[1], `"`, "")] = m[2]
	}
	return got
}

func TestMetricsComeFromTheState(t *testing.T) {
	f := newFixture(t)
	syncs := []Sync{{Name: "handbook"}, {Name: "new"}}
	p := f.page(Options{Syncs: func() []Sync { return syncs }})
	s := f.sync("handbook")
	f.put(s, []string{"a.md", "b.md", "c.md", "d.md"})
	ids := f.accept(s, 3)
	f.trained(s, state.TrainingCompleted, "", ids[0])
	f.trained(s, state.TrainingFailed, "", ids[1])
	documents := values(t, p, "kbsync_documents")
	for labels, want := range map[string]string{
		"state=completed,sync=handbook": "1", "state=failed,sync=handbook": "1", "state=training,sync=handbook": "1", "state=pending,sync=handbook": "1",
		"state=stuck,sync=handbook": "0", "state=pending,sync=new": "0",
	} {
		if documents[labels] != want {
			t.Errorf("documents{%s} = %s, want %s", labels, documents[labels], want)
		}
	}
	if len(documents) != 2*9 {
		t.Errorf("%d series", len(documents))
	}
	if got := values(t, p, "kbsync_last_scan_timestamp_seconds"); got["sync=handbook"] == "0" || got["sync=new"] != "0" {
		t.Errorf("scanned: %v", got)
	}
	if got := values(t, p, "kbsync_sync_stopped"); got["sync=handbook"] != "0" || got["sync=new"] != "0" {
		t.Errorf("stopped: %v", got)
	}
	if got := values(t, p, "kbsync_missed_changes_total"); got["sync=new"] != "0" {
		t.Errorf("a sync without changes has no series: %v", got)
	}
	if got := values(t, p, "kbsync_notification_connected"); len(got) != 0 {
		t.Errorf("a sync without notifications has a series of the broker: %v", got)
	}
	p.Metrics.MissedChanges("new", 1)
	p.Metrics.Notified("new", Notifications{Connected: true})
	p.Metrics.UploadRequest("new", 200, time.Second)

	// The metrics lose the series of a sync that left the config and the state.
	syncs = syncs[:1]
	p.expireReading()
	for _, name := range []string{"kbsync_missed_changes_total", "kbsync_upload_request_duration_seconds_count", "kbsync_documents", "kbsync_restless_files",
		"kbsync_notifications_total", "kbsync_notification_connected"} {
		for labels := range values(t, p, name) {
			if strings.Contains(labels, "sync=new") {
				t.Errorf("%s{%s} is still there", name, labels)
			}
		}
	}

	// A sync that left the config stays in the state, and has no series either. An answer that comes late makes none.
	for range 2 {
		syncs = nil
		p.expireReading()
		body := get(t, p, "/metrics")
		if n := strings.Count(body, "sync="); n != 0 || !strings.Contains(get(t, p, "/"), "not in the config") {
			t.Errorf("%d series of a sync that left the config: %s", n, body)
		}
		p.Metrics.UploadRequest("handbook", 200, time.Second)
		p.Metrics.BatchEnded("handbook", state.BatchAccepted)
		p.Metrics.BytesSent("new", 1)
	}
	// It begins again at zero when it is back.
	syncs = []Sync{{Name: "handbook"}}
	p.expireReading()
	if got := values(t, p, "kbsync_upload_bytes_total"); len(got) != 1 || got["sync=handbook"] != "0" {
		t.Errorf("back in the config: %v", got)
	}

	// Without a state the other metrics stay, and one counts the failure.
	f.close()
	p.expireReading()
	body := get(t, p, "/metrics")
	if !strings.Contains(body, "\nkbsync_state_read_errors_total 1\n") || strings.Contains(body, "kbsync_documents{") || !strings.Contains(body, "kbsync_missed_changes_total{") {
		t.Errorf("without a state: %s", body)
	}
}

func TestWriteMetricsReplacesTheFile(t *testing.T) {
	f, p := fed(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "kbsync.prom")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.must(p.WriteMetrics(path))
	text, err := os.ReadFile(path)
	f.must(err)
	if !strings.Contains(string(text), `kbsync_documents{state="pending",sync="handbook"} 1`) || strings.Contains(string(text), "go_") || strings.Contains(string(text), "process_") {
		t.Errorf("the file has %s", text)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode() != fs.FileMode(0o644) {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if problems, err := promlint.New(strings.NewReader(string(text))).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("leftover files: %v, %v", files, err)
	}
	if err := p.WriteMetrics(filepath.Join(dir, "missing", "kbsync.prom")); err == nil {
		t.Error("written to a missing directory")
	}

	// WriteMetrics reads the state again. Without a state it writes nothing.
	f.put(f.sync("handbook"), []string{"b.md"})
	f.must(p.WriteMetrics(path))
	if text, _ = os.ReadFile(path); !strings.Contains(string(text), `kbsync_documents{state="pending",sync="handbook"} 2`) {
		t.Errorf("the file has %s", text)
	}
	f.close()
	if err := p.WriteMetrics(path); err == nil {
		t.Error("written without a state")
	}
	if again, _ := os.ReadFile(path); string(again) != string(text) {
		t.Error("the old file did not stay")
	}
}
