package deploytest

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

const (
	rulesFile     = "../../examples/prometheus/kbsync.rules.yaml"
	rulesTest     = "../../examples/prometheus/kbsync.rules.test.yaml"
	dashboardFile = "../../examples/grafana/kbsync.json"
)

// A metric is a row of docs/metrics.md. A test of internal/statuspage compares these rows with what kbsync exports.
type metric struct {
	kind, text string
	labels     []string
}

func documentedMetrics(t *testing.T) map[string]metric {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	metrics := map[string]metric{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(kbsync_\\w+)` \\| (\\w+) \\| ([^|]*)\\| (.*) \\|$").FindAllStringSubmatch(string(text), -1) {
		metrics[m[1]] = metric{m[2], m[4], strings.FieldsFunc(m[3], func(r rune) bool { return r == ',' || r == ' ' })}
	}
	if len(metrics) < 20 {
		t.Fatalf("docs/metrics.md has %d metrics", len(metrics))
	}
	return metrics
}

// checkExpression reports each metric, label and state of an expression that kbsync does not export.
func checkExpression(text string, metrics map[string]metric) (problems []string) {
	expr, err := parser.ParseExpr(text)
	if err != nil {
		return []string{err.Error()}
	}
	known := []string{"job", "instance"} // Prometheus adds these to every series
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok || strings.HasPrefix(selector.Name, "process_") {
			return nil
		}
		name := selector.Name
		m, ok := metrics[name]
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			if base, cut := strings.CutSuffix(name, suffix); cut && metrics[base].kind == "histogram" {
				m, ok = metrics[base], true
				known = append(known, "le")
			}
		}
		if !ok {
			problems = append(problems, "there is no metric "+name)
		}
		known = append(known, m.labels...)
		for _, matcher := range selector.LabelMatchers {
			if matcher.Name == labels.MetricName {
				continue
			}
			if !slices.Contains(m.labels, matcher.Name) {
				problems = append(problems, name+" has no label "+matcher.Name)
			}
			for _, value := range strings.Split(matcher.Value, "|") {
				if matcher.Name == "state" && !regexp.MustCompile(`\b`+regexp.QuoteMeta(value)+`\b`).MatchString(m.text) {
					problems = append(problems, name+" has no state "+value)
				}
			}
		}
		return nil
	})
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if a, ok := node.(*parser.AggregateExpr); ok {
			for _, label := range a.Grouping {
				if !slices.Contains(known, label) {
					problems = append(problems, "no metric of "+text+" has the label "+label)
				}
			}
		}
		return nil
	})
	return problems
}

// TestCheckExpressionFindsMistakes tests checkExpression.
func TestCheckExpressionFindsMistakes(t *testing.T) {
	t.Parallel()
	metrics := documentedMetrics(t)
	for text, mistake := range map[string]bool{
		`sum by (sync, le) (rate(kbsync_upload_request_duration_seconds_bucket{code="200"}[5m])) > 1`: false,
		`kbsync_documents{state=~"failed|stuck"}`:                                                     false,
		`kbsync_documents{state=~"failed|dead"}`:                                                      true,
		`kbsync_documents{code="1"}`:                                                                  true,
		`kbsync_document`:                                                                             true,
		`kbsync_documents_bucket`:                                                                     true,
		`sum by (name) (kbsync_documents)`:                                                            true,
		`sum by (kbsync_documents`:                                                                    true,
	} {
		if problems := checkExpression(text, metrics); (problems != nil) != mistake {
			t.Errorf("%s: %v", text, problems)
		}
	}
}

// TestAlertRules parses the rules as Prometheus does.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	groups, problems := rulefmt.ParseFile(rulesFile, false)
	if problems != nil {
		t.Fatal(problems)
	}
	metrics := documentedMetrics(t)
	tests, err := os.ReadFile(rulesTest)
	if err != nil {
		t.Fatal(err)
	}
	alerts := map[string]bool{}
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			for _, problem := range checkExpression(r.Expr, metrics) {
				t.Errorf("%s: %s", r.Alert, problem)
			}
			if alerts[r.Alert] || r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s is there twice, or has no severity, summary or description", r.Alert)
			}
			alerts[r.Alert] = true
			// One test in which it fires, and one in which it does not.
			if !strings.Contains(string(tests), `{alertname="`+r.Alert+`"`) || !strings.Contains(string(tests), "10h, alertname: "+r.Alert+"}") {
				t.Errorf("%s lacks a unit test", r.Alert)
			}
		}
	}
	if len(alerts) < 7 {
		t.Errorf("only %d alerts", len(alerts))
	}
}

// TestAlertsFire runs the unit tests of the rules with promtool, which is in Debian's package prometheus.
func TestAlertsFire(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	switch {
	case err != nil && os.Getenv("TEST_SERVERS") == "all":
		t.Fatal(err)
	case err != nil:
		t.Skip("promtool is missing, so the alerts are parsed and not tested. To install it: .ci/servers install as root on Debian")
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", rulesTest).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// A panel of the dashboard. Only the fields that the test reads.
type panel struct {
	ID          int
	Type, Title string
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct{ Expr, RefID string }
	Datasource  struct{ UID string }
}

func TestDashboard(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		UID, Title string
		Templating struct {
			List []struct{ Name string }
		}
		Panels []panel
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	metrics := documentedMetrics(t)
	// The variables of Grafana, with values that make the expressions PromQL.
	variables := strings.NewReplacer("$__rate_interval", "5m", "$sync", ".*")
	ids, shown := map[int]bool{}, map[string]bool{}
	for i, p := range dashboard.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d: its id is there twice, or it has no title, or it is too wide", p.ID)
		}
		ids[p.ID] = true
		for _, q := range dashboard.Panels[:i] {
			a, b := p.GridPos, q.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("%q and %q overlap", p.Title, q.Title)
			}
		}
		if p.Type == "row" {
			continue
		}
		if len(p.Targets) == 0 || p.Datasource.UID != "${datasource}" {
			t.Errorf("%q has no query, or a data source of its own", p.Title)
		}
		for _, target := range p.Targets {
			expr := variables.Replace(target.Expr)
			for _, problem := range checkExpression(expr, metrics) {
				t.Errorf("%q: %s", p.Title, problem)
			}
			for _, name := range regexp.MustCompile(`kbsync_\w+`).FindAllString(expr, -1) {
				shown[name] = true
			}
		}
	}
	for _, name := range []string{"kbsync_last_success_timestamp_seconds", "kbsync_last_scan_timestamp_seconds", "kbsync_documents",
		"kbsync_sync_stopped", "kbsync_left_behind_sources", "kbsync_uploads_held", "kbsync_guard_trips_total"} {
		if !shown[name] {
			t.Errorf("no panel shows %s", name)
		}
	}
	if len(dashboard.Templating.List) != 2 || dashboard.UID == "" {
		t.Error("the dashboard has no variables or no uid")
	}
}
