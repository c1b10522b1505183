package statuspage

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kbsync/kbsync/state"
)

// documentStates are the values of the label state of kbsync_documents.
var documentStates = []state.DocumentState{
	state.Pending, state.Uploading, state.Training, state.Completed, state.Failed, state.Stuck, state.Uncertain, state.Skipped, state.Removed,
}

// batchStates are the values of the label state of kbsync_upload_batches_total.
var batchStates = []state.BatchState{state.BatchAccepted, state.BatchRefused, state.BatchAbandoned, state.BatchUncertain}

// trainingStates are the values of the label state of kbsync_training_duration_seconds.
var trainingStates = []state.DocumentState{state.Completed, state.Failed}

// notificationCodes are the values of the label code of kbsync_notifications_total.
var notificationCodes = []string{"taken", "elsewhere", "unknown"}

// guards are the values of the label code of kbsync_guard_trips_total, beside "other".
var guards = []string{"empty", "empty-directory", "new-root", "lost-mount", "new-mount", "max-delete", "max-change", "max-uploads", "new-state", "lost-state", "destination"}

// Metrics counts the work of the running loops. Its methods are cheap and safe for concurrent use. A label has either the name
// of a sync or a value from a fixed list, regardless of the arguments, so the number of series is bounded.
type Metrics struct {
	batches     *prometheus.CounterVec
	bytes       *prometheus.CounterVec
	requests    *prometheus.HistogramVec
	retries     *prometheus.CounterVec
	polls       *prometheus.CounterVec
	training    *prometheus.HistogramVec
	missed      *prometheus.CounterVec
	overflows   *prometheus.CounterVec
	guardTrips  *prometheus.CounterVec
	notified    *prometheus.CounterVec
	connections *prometheus.CounterVec
	failedAcks  *prometheus.CounterVec
	connected   *prometheus.GaugeVec
	held        *prometheus.GaugeVec
	restless    *prometheus.GaugeVec
	reloadOK    prometheus.Gauge
	reloadAt    prometheus.Gauge
	stateErrors prometheus.Counter

	mu    sync.Mutex
	known map[string]bool // syncs that have had series; true if they have them now
}

func newMetrics() *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return &Metrics{
		batches: counter("kbsync_upload_batches_total", "Upload batches by outcome.", "sync", "state"),
		bytes:   counter("kbsync_upload_bytes_total", "Bytes of documents sent, including failed requests.", "sync"),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kbsync_upload_request_duration_seconds", Help: "Time from the first byte of an upload request to its answer, by HTTP status.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600},
		}, []string{"sync", "code"}),
		retries: counter("kbsync_upload_retries_total", "Upload requests with documents of an earlier failed request.", "sync"),
		polls:   counter("kbsync_status_requests_total", "Requests for the training status of sources, by HTTP status.", "code"),
		training: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kbsync_training_duration_seconds", Help: "Time from the creation of a source to the end of its training.",
			Buckets: []float64{1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200},
		}, []string{"state"}),
		missed:      counter("kbsync_missed_changes_total", "Changes that a rescan found and no event had reported.", "sync"),
		overflows:   counter("kbsync_event_overflows_total", "Times that the queue of file events overflowed.", "sync"),
		notified:    counter("kbsync_notifications_total", "Messages of a bucket's notifications by the kind of object they name.", "sync", "code"),
		connections: counter("kbsync_notification_connections_total", "Connections to the broker of a bucket's notifications.", "sync"),
		failedAcks:  counter("kbsync_notification_failed_acks_total", "Failed acknowledgements of notifications, which the broker then delivers again.", "sync"),
		connected: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kbsync_notification_connected", Help: "Whether the broker of a bucket's notifications is connected.",
		}, []string{"sync"}),
		held: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kbsync_notifications_held", Help: "Received messages whose documents are not recorded yet.",
		}, []string{"sync"}),
		guardTrips: counter("kbsync_guard_trips_total", "Scans that a guard halted, by guard.", "sync", "code"),
		restless: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kbsync_restless_files", Help: "Files that were not sent because writes continued for longer than the maximum wait.",
		}, []string{"sync"}),
		reloadOK:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "kbsync_config_last_reload_successful", Help: "Whether the last load of the config succeeded."}),
		reloadAt:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "kbsync_config_last_reload_success_timestamp_seconds", Help: "Time of the last successful load of the config."}),
		stateErrors: prometheus.NewCounter(prometheus.CounterOpts{Name: "kbsync_state_read_errors_total", Help: "Failed attempts to read the state for the page and the metrics."}),
		known:       map[string]bool{},
	}
}

func (m *Metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		m.batches, m.bytes, m.requests, m.retries, m.polls, m.training, m.missed, m.overflows, m.guardTrips, m.restless,
		m.notified, m.connections, m.failedAcks, m.connected, m.held, m.reloadOK, m.reloadAt, m.stateErrors,
	}
}

// BatchEnded counts a batch that was accepted, refused, abandoned or became uncertain.
func (m *Metrics) BatchEnded(sync string, end state.BatchState) {
	if slices.Contains(batchStates, end) {
		m.batches.WithLabelValues(label(sync), string(end)).Inc()
	}
}

// BytesSent counts bytes of documents as they are sent. It ignores negative numbers.
func (m *Metrics) BytesSent(sync string, n int64) {
	m.bytes.WithLabelValues(label(sync)).Add(float64(max(n, 0)))
}

// UploadRequest records a finished upload request; statusCode is 0 if there was no answer.
func (m *Metrics) UploadRequest(sync string, statusCode int, took time.Duration) {
	m.requests.WithLabelValues(label(sync), code(statusCode)).Observe(took.Seconds())
}

// Retried counts an upload request with documents of an earlier failed request.
func (m *Metrics) Retried(sync string) { m.retries.WithLabelValues(label(sync)).Inc() }

// StatusRequest counts a request for the status of sources; statusCode is 0 if there was no answer.
func (m *Metrics) StatusRequest(statusCode int) { m.polls.WithLabelValues(code(statusCode)).Inc() }

// Trained records that the training of a source completed or failed, and the time since its creation. It ignores other outcomes.
func (m *Metrics) Trained(outcome state.Outcome, took time.Duration) {
	switch outcome {
	case state.TrainingCompleted:
		m.training.WithLabelValues(string(state.Completed)).Observe(took.Seconds())
	case state.TrainingFailed:
		m.training.WithLabelValues(string(state.Failed)).Observe(took.Seconds())
	}
}

// MissedChanges counts changes that a rescan found and no file event or notification had reported.
func (m *Metrics) MissedChanges(sync string, n int) {
	m.missed.WithLabelValues(label(sync)).Add(float64(max(n, 0)))
}

// Overflowed counts an overflow of the queue of file events.
func (m *Metrics) Overflowed(sync string) { m.overflows.WithLabelValues(label(sync)).Inc() }

// Notifications are counts of a bucket's notifications. The counters are increases since the previous call of Metrics.Notified.
type Notifications struct {
	Taken, Elsewhere, Unknown uint64 // increases
	Connections, FailedAcks   uint64 // increases
	Connected                 bool   // now
	Held                      int    // now
}

// Notified records the notifications of a sync. A sync without a subscription must not be passed, so that it has no series.
func (m *Metrics) Notified(sync string, n Notifications) {
	name := label(sync)
	for i, count := range []uint64{n.Taken, n.Elsewhere, n.Unknown} {
		m.notified.WithLabelValues(name, notificationCodes[i]).Add(float64(count))
	}
	m.connections.WithLabelValues(name).Add(float64(n.Connections))
	m.failedAcks.WithLabelValues(name).Add(float64(n.FailedAcks))
	m.connected.WithLabelValues(name).Set(boolValue(n.Connected))
	m.held.WithLabelValues(name).Set(float64(n.Held))
}

// GuardTripped counts a scan that a guard halted. The guard is one of package watcher's or "max-uploads", "new-state" or
// "destination"; any other counts as "other".
func (m *Metrics) GuardTripped(sync, guard string) {
	if !slices.Contains(guards, guard) {
		guard = "other"
	}
	m.guardTrips.WithLabelValues(label(sync), guard).Inc()
}

// RestlessFiles sets the number of files whose writes have continued for longer than the maximum wait.
func (m *Metrics) RestlessFiles(sync string, n int) {
	m.restless.WithLabelValues(label(sync)).Set(float64(n))
}

// Reloaded records the result of loading the config, at the start or by a reload.
func (m *Metrics) Reloaded(ok bool) {
	if !ok {
		m.reloadOK.Set(0)
		return
	}
	m.reloadOK.Set(1)
	m.reloadAt.SetToCurrentTime()
}

// reconcile creates the series of each sync at zero, so that a rate sees the first increase, and deletes the series of other syncs.
func (m *Metrics) reconcile(names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := map[string]bool{}
	for _, name := range names {
		name = label(name)
		now[name] = true
		if m.known[name] {
			continue
		}
		for _, v := range []*prometheus.CounterVec{m.bytes, m.retries, m.missed, m.overflows} {
			v.WithLabelValues(name)
		}
		for _, end := range batchStates {
			m.batches.WithLabelValues(name, string(end))
		}
		for _, guard := range guards {
			m.guardTrips.WithLabelValues(name, guard)
		}
		m.restless.WithLabelValues(name)
	}
	for name := range m.known {
		if now[name] {
			continue
		}
		// Also if they were deleted before: an answer that came after the sync left the config has made a series again.
		now[name] = false
		gone := prometheus.Labels{"sync": name}
		for _, v := range []*prometheus.CounterVec{m.batches, m.bytes, m.retries, m.missed, m.overflows, m.guardTrips, m.notified, m.connections, m.failedAcks} {
			v.DeletePartialMatch(gone)
		}
		m.requests.DeletePartialMatch(gone)
		for _, v := range []*prometheus.GaugeVec{m.restless, m.connected, m.held} {
			v.DeletePartialMatch(gone)
		}
	}
	m.known = now
}

// label returns a name as the value of a label, which must be valid UTF-8.
func label(name string) string { return strings.ToValidUTF8(name, "\ufffd") }

// code returns the label of an HTTP status.
func code(status int) string {
	if status < 100 || status > 599 {
		return "none"
	}
	return strconv.Itoa(status)
}

// The metrics that come from the state.
var (
	documentsDesc = desc("kbsync_documents", "Documents by state.", "sync", "state")
	pendingDesc   = desc("kbsync_oldest_pending_age_seconds", "Age of the oldest change that is not uploaded; 0 if there is none.", "sync")
	scanDesc      = desc("kbsync_last_scan_timestamp_seconds", "Time of the last complete scan of the root; 0 for never.", "sync")
	uploadDesc    = desc("kbsync_last_upload_timestamp_seconds", "Time of the last upload that the API accepted; 0 for never.", "sync")
	successDesc   = desc("kbsync_last_success_timestamp_seconds", "Last time at which every known document of the root was in the knowledge base and trained; 0 for never.", "sync")
	leftDesc      = desc("kbsync_left_behind_sources", "Sources without a document that still answer in the knowledge base, until a person removes them.", "sync", "state")
	stoppedDesc   = desc("kbsync_sync_stopped", "Whether the last pass was halted or stopped before its end.", "sync")
	heldDesc      = desc("kbsync_uploads_held", "Whether uploads wait: because an answer was lost and no upload succeeded since, or because the API asked to wait.", "sync")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// A stateCollector exports the metrics that come from the state.
type stateCollector struct{ page *Page }

func (c stateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{documentsDesc, pendingDesc, scanDesc, uploadDesc, successDesc, leftDesc, stoppedDesc, heldDesc} {
		ch <- d
	}
}

// Collect exports nothing if it cannot read the state. kbsync_state_read_errors_total counts the failure, and the other metrics stay.
func (c stateCollector) Collect(ch chan<- prometheus.Metric) {
	o, err := c.page.overview(context.Background())
	if err != nil {
		return
	}
	for i := range o.Syncs {
		s := &o.Syncs[i]
		if !s.Configured {
			continue // its values would never change again, and alert for ever
		}
		gauge := func(d *prometheus.Desc, v float64, more ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{label(s.Name)}, more...)...)
		}
		for _, st := range documentStates {
			gauge(documentsDesc, float64(s.Documents[st]), string(st))
		}
		age := 0.0
		if s.PendingSince != nil {
			age = max(time.Since(*s.PendingSince).Seconds(), 0)
		}
		gauge(pendingDesc, age)
		gauge(scanDesc, unix(s.ScannedAt))
		gauge(uploadDesc, unix(s.AcceptedAt))
		gauge(successDesc, unix(s.SuccessAt))
		gauge(leftDesc, float64(s.Superseded), string(state.Superseded))
		gauge(leftDesc, float64(s.Orphaned), string(state.Orphaned))
		gauge(stoppedDesc, boolValue(s.LastError != "" || s.Halted))
		gauge(heldDesc, boolValue(s.BreakerOpen || s.PausedUntil != nil))
	}
}

func unix(t *time.Time) float64 {
	if t == nil {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// register makes two registries: one for the metrics of kbsync, which WriteMetrics writes too, and one for the metrics of the process.
func (p *Page) register() error {
	p.Metrics = newMetrics()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kbsync_build_info", Help: "Always 1; the labels are the version of kbsync and of Go.",
		ConstLabels: prometheus.Labels{"version": label(cmp.Or(p.opts.Version, "unknown")), "goversion": runtime.Version()},
	})
	build.Set(1)
	own, process := prometheus.NewPedanticRegistry(), prometheus.NewRegistry()
	for _, c := range append(p.Metrics.collectors(), build, stateCollector{p}) {
		if err := own.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	for _, c := range []prometheus.Collector{collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		if err := process.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	for _, end := range trainingStates {
		p.Metrics.training.WithLabelValues(string(end))
	}
	p.own, p.process = own, process
	return nil
}

// refreshMetrics reads the state and reconciles the series, before the metrics are gathered.
func (p *Page) refreshMetrics(ctx context.Context) error {
	o, err := p.overview(ctx)
	if err != nil {
		return err
	}
	var names []string
	for i := range o.Syncs {
		if o.Syncs[i].Configured {
			names = append(names, o.Syncs[i].Name)
		}
	}
	p.Metrics.reconcile(names)
	return nil
}

func (p *Page) metricsHandler() http.Handler {
	h := promhttp.HandlerFor(prometheus.Gatherers{p.own, p.process}, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4, // slow requests must not pile up
		Timeout:             2 * readTimeout,
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = p.refreshMetrics(r.Context()) // read counts and logs the error, and the other metrics are exported
		h.ServeHTTP(w, r)
	})
}

// WriteMetrics writes the current metrics of kbsync to a file for the textfile collector of node_exporter, which reads files
// with the extension .prom. It replaces the file atomically. The mode is 0644, because node_exporter runs as another user; the
// file contains names of syncs but no names of documents. It does not contain metrics of the process and the Go runtime, because
// node_exporter exports its own.
func (p *Page) WriteMetrics(path string) error {
	p.expireReading()
	// If the state is unreadable the old file stays, so that its old timestamps trigger an alert.
	if err := p.refreshMetrics(context.Background()); err != nil {
		return fmt.Errorf("write metrics: %w", err)
	}
	if err := prometheus.WriteToTextfile(path, p.own); err != nil {
		return fmt.Errorf("write metrics: %w", err)
	}
	return nil
}
