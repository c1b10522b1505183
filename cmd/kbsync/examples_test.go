package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/kbsync/kbsync/internal/config"
)

// A unit holds the values of a systemd unit file by "Section.Key".
type unit map[string][]string

func readUnit(t *testing.T, name string) unit {
	t.Helper()
	u := unit{}
	section := ""
	for row := range strings.Lines(readText(t, filepath.Join(examples, "systemd", name))) {
		row = strings.TrimSpace(row)
		if key, value, ok := strings.Cut(row, "="); ok && !strings.HasPrefix(row, "#") {
			u[section+key] = append(u[section+key], value)
		} else if strings.HasPrefix(row, "[") {
			section = strings.Trim(row, "[]") + "."
		}
	}
	return u
}

func (u unit) value(key string) string {
	if len(u[key]) != 1 {
		return fmt.Sprintf("%d values of %s", len(u[key]), key)
	}
	return u[key][0]
}

// hostFiles returns the files of the examples by their path on a host.
func hostFiles(t *testing.T) map[string][]byte {
	return map[string][]byte{"/etc/kbsync/kbsync.yaml": []byte(readText(t, filepath.Join(examples, "systemd", "kbsync.yaml")))}
}

// TestUnitsMatchTheirConfig compares the systemd services with the config that they name.
func TestUnitsMatchTheirConfig(t *testing.T) {
	t.Parallel()
	skipPaths(t)
	for _, test := range []struct{ file, command, kind string }{
		{"kbsync.service", "watch", "notify"},
		{"kbsync-sync.service", "sync", "oneshot"},
	} {
		u := readUnit(t, test.file)
		argv := strings.Fields(u.value("Service.ExecStart"))
		if argv[0] != "/usr/local/bin/kbsync" || argv[1] != test.command || u.value("Service.Type") != test.kind {
			t.Errorf("%s runs %v as %s", test.file, argv, u.value("Service.Type"))
		}
		id, _, _ := strings.Cut(u.value("Service.LoadCredential"), ":")
		for i, word := range argv {
			argv[i] = strings.ReplaceAll(word, "${CREDENTIALS_DIRECTORY}", "/run/credentials/"+test.file)
		}
		cfg, err := parseWith(argv[1:], hostFiles(t))
		if err != nil {
			t.Errorf("%s: %v", test.file, err)
			continue
		}
		if want := "/run/credentials/" + test.file + "/" + id; cfg.API.TokenFile != want {
			t.Errorf("%s: kbsync reads the token from %s, but it is in %s", test.file, cfg.API.TokenFile, want)
		}
		if dir := path.Dir(cfg.State); dir != "/var/lib/"+u.value("Service.StateDirectory") {
			t.Errorf("%s: the service cannot write its state in %s", test.file, dir)
		}
		for _, s := range cfg.Syncs {
			if s.Root.Dir != strings.TrimPrefix(u.value("Service.ReadOnlyPaths"), "-") {
				t.Errorf("%s: %s is not in ReadOnlyPaths", test.file, s.Root)
			}
		}
		if stop, err := time.ParseDuration(u.value("Service.TimeoutStopSec")); err != nil || stop < cfg.ShutdownGrace+10*time.Second {
			t.Errorf("%s: TimeoutStopSec is %v (%v), and --shutdown-grace %v", test.file, stop, err, cfg.ShutdownGrace)
		}
	}
	if u := readUnit(t, "kbsync.service"); u.value("Service.ExecReload") != "/bin/kill -HUP $MAINPID" || u["Service.WatchdogSec"] == nil || u["Service.Restart"] == nil {
		t.Error("kbsync.service lacks ExecReload, WatchdogSec or Restart")
	}
	if u := readUnit(t, "kbsync-sync.timer"); u["Timer.OnCalendar"] == nil || u.value("Install.WantedBy") != "timers.target" {
		t.Error("kbsync-sync.timer never starts the service")
	}
}

// TestSystemdAcceptsUnits runs systemd-analyze verify on the units.
func TestSystemdAcceptsUnits(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed; Debian has it in the package systemd")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	verify := func(t *testing.T, names ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), analyze, append([]string{"verify", "--man=no", "--recursive-errors=no"}, names...)...).CombinedOutput()
		if err != nil {
			return fmt.Sprintf("%v\n%s", err, out)
		}
		// Warnings, for example about an unknown key, leave the exit code 0.
		var warnings strings.Builder
		for row := range strings.Lines(string(out)) {
			if strings.Contains(row, dir) || strings.Contains(row, "kbsync") {
				warnings.WriteString(row)
			}
		}
		return warnings.String()
	}
	// systemd-analyze checks that the program exists.
	put := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "/usr/local/bin/kbsync", self)), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	var files []string
	for _, name := range []string{"kbsync.service", "kbsync-sync.service", "kbsync-sync.timer"} {
		files = append(files, put(name, readText(t, filepath.Join(examples, "systemd", name))))
	}
	if warnings := verify(t, files...); warnings != "" {
		t.Errorf("systemd-analyze verify:\n%s", warnings)
	}
	// Without this check a silent systemd-analyze would pass.
	mistake := put("kbsync-mistake.service", "[Service]\nExecStart="+self+"\nProtectSytem=strict\n")
	if warnings := verify(t, mistake); !strings.Contains(warnings, "ProtectSytem") {
		t.Errorf("systemd-analyze verify does not see a mistake: %q", warnings)
	}
}

// The units take rights from the service until systemd rates its exposure below 2.0 of 10.
func TestUnitsLeaveFewRights(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed; Debian has it in the package systemd")
	}
	for _, name := range []string{"kbsync.service", "kbsync-sync.service"} {
		out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--no-pager", "--threshold=20", filepath.Join(examples, "systemd", name)).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestCrontabLinesParse parses each line of the crontab and the config that it names.
func TestCrontabLinesParse(t *testing.T) {
	t.Parallel()
	lines := 0
	for row := range strings.Lines(readText(t, filepath.Join(examples, "crontab"))) {
		if row = strings.TrimSpace(row); row == "" || row[0] == '#' {
			continue
		}
		if !cronTimes.MatchString(row) || strings.Contains(row, "%") { // cron reads % as the end of the line
			t.Errorf("%q is not a line of a crontab", row)
		}
		for _, l := range ofKbsync("crontab", row, false) {
			lines++
			if _, err := parseWith(l.argv, hostFiles(t)); err != nil {
				t.Errorf("kbsync %s: %v", strings.Join(l.argv, " "), err)
			}
		}
	}
	if lines < 2 {
		t.Errorf("only %d lines run kbsync", lines)
	}
}

// A mount is a volume at a path in a container.
type mount struct {
	at       string
	readOnly bool
}

// A container is the configuration of a container in an example.
type container struct {
	name   string
	argv   []string
	files  map[string][]byte
	mounts []mount
	ports  []string
	probes []string // paths
	// secrets are the environment variables. Each is from a Secret.
	secrets []string
	grace   time.Duration // between the signal and the kill
}

// check compares a container with the config that it runs with.
func (c container) check(t *testing.T) *config.Config {
	t.Helper()
	cfg, err := parseWith(c.argv, c.files)
	if err != nil {
		t.Errorf("%s: kbsync %s: %v", c.name, strings.Join(c.argv, " "), err)
		return nil
	}
	mountOf := func(file string) (m mount, ok bool) { // the mount with the longest path
		for _, candidate := range c.mounts {
			if (file == candidate.at || strings.HasPrefix(file, candidate.at+"/")) && len(candidate.at) > len(m.at) {
				m, ok = candidate, true
			}
		}
		return m, ok
	}
	c.checkState(t, cfg, mountOf)
	if !slices.Contains(c.argv, "--emulator") {
		if _, ok := mountOf(cfg.API.TokenFile); !ok {
			t.Errorf("%s: the token_file %q is not on a volume", c.name, cfg.API.TokenFile)
		}
	}
	for _, s := range cfg.Syncs {
		if m, ok := mountOf(s.Root.Dir); s.Root.Dir != "" && (!ok || !m.readOnly) {
			t.Errorf("%s: the root %s is not on a read-only volume", c.name, s.Root)
		}
	}
	if c.grace < cfg.ShutdownGrace+10*time.Second {
		t.Errorf("%s: the kill comes after %v, but --shutdown-grace is %v", c.name, c.grace, cfg.ShutdownGrace)
	}
	if c.argv[0] != "watch" {
		if len(c.ports)+len(c.probes) > 0 {
			t.Errorf("%s: %s has ports or probes but does not listen", c.name, c.argv[0])
		}
		return cfg
	}
	host, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil || host != "0.0.0.0" || !slices.Equal(c.ports, []string{port}) {
		t.Errorf("%s: kbsync listens on %s, but the ports are %v", c.name, cfg.Listen, c.ports)
	}
	for _, probe := range c.probes {
		if probe != "/healthz" && probe != "/readyz" {
			t.Errorf("%s: unknown path of a probe: %s", c.name, probe)
		}
	}
	return cfg
}

// checkState checks that the container can reach its state, and that the state outlives the container.
func (c container) checkState(t *testing.T, cfg *config.Config, mountOf func(string) (mount, bool)) {
	t.Helper()
	u, err := url.Parse(cfg.State)
	if err != nil || u.Scheme != "postgres" {
		if m, ok := mountOf(cfg.State); !ok || m.readOnly || len(c.secrets) > 0 {
			t.Errorf("%s: the state %s is not on a writable volume, or needs none of the variables %v", c.name, cfg.State, c.secrets)
		}
		return
	}
	if !slices.Equal(c.secrets, []string{"PGPASSWORD"}) {
		t.Errorf("%s: the password of the state is not in PGPASSWORD; the variables are %v", c.name, c.secrets)
	}
	if mode := u.Query().Get("sslmode"); mode != "verify-full" {
		t.Errorf("%s: the sslmode of the state is %q, so that another server could get the password", c.name, mode)
	}
	if m, ok := mountOf(u.Query().Get("sslrootcert")); !ok || !m.readOnly {
		t.Errorf("%s: the certificate of the state's authority is not on a volume", c.name)
	}
}

// documents decodes a file of YAML documents.
func documents(t *testing.T, name string) (all []map[string]any) {
	t.Helper()
	decoder := yaml.NewDecoder(bytes.NewReader([]byte(readText(t, name))))
	for {
		var d map[string]any
		err := decoder.Decode(&d)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, d)
	}
}

// at returns the value at a path of keys in decoded YAML, or nil.
func at(v any, keys ...string) any {
	for _, key := range keys {
		m, _ := v.(map[string]any)
		v = m[key]
	}
	return v
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

func texts(v any) (all []string) {
	for _, item := range list(v) {
		all = append(all, fmt.Sprint(item))
	}
	return all
}

// TestKubernetesPodsMatchTheirConfig compares each pod with the config that it mounts. internal/deploytest checks the
// manifests against their schema.
func TestKubernetesPodsMatchTheirConfig(t *testing.T) {
	t.Parallel()
	skipPaths(t)
	shared := configFiles(documents(t, filepath.Join(examples, "kubernetes", "configmap.yaml")))
	commands := map[string]string{}
	for _, name := range []string{"deployment.yaml", "sidecar.yaml", "cronjob.yaml", "bucket.yaml", "postgres.yaml"} {
		objects := documents(t, filepath.Join(examples, "kubernetes", name))
		files := configFiles(objects)
		if len(files) == 0 {
			files = shared
		}
		for _, object := range objects {
			pod := at(object, "spec", "template", "spec")
			if at(object, "kind") == "CronJob" {
				pod = at(object, "spec", "jobTemplate", "spec", "template", "spec")
			}
			grace, _ := strconv.Atoi(fmt.Sprint(at(pod, "terminationGracePeriodSeconds")))
			for _, c := range slices.Concat(list(at(pod, "initContainers")), list(at(pod, "containers"))) {
				if at(c, "image") != image {
					continue
				}
				kbsync := container{name: name, argv: texts(at(c, "args")), files: files, grace: time.Duration(grace) * time.Second}
				if at(c, "command") != nil {
					t.Errorf("%s: this test does not check command", name)
				}
				for _, e := range list(at(c, "env")) {
					kbsync.secrets = append(kbsync.secrets, fmt.Sprint(at(e, "name")))
				}
				for _, m := range list(at(c, "volumeMounts")) {
					kbsync.mounts = append(kbsync.mounts, mount{fmt.Sprint(at(m, "mountPath")), at(m, "readOnly") == true})
				}
				for _, p := range list(at(c, "ports")) {
					kbsync.ports = append(kbsync.ports, fmt.Sprint(at(p, "containerPort")))
				}
				for _, probe := range []string{"startupProbe", "livenessProbe", "readinessProbe"} {
					if at(c, probe) != nil {
						kbsync.probes = append(kbsync.probes, fmt.Sprint(at(c, probe, "httpGet", "path")))
					}
				}
				kbsync.check(t)
				if name == "deployment.yaml" {
					kbsync.name = "kustomize"
					kbsync.files = map[string][]byte{"/etc/kbsync/kbsync.yaml": []byte(readText(t, filepath.Join(examples, "kustomize", "kbsync.yaml")))}
					kbsync.check(t)
				}
				commands[name] = kbsync.argv[0]
			}
		}
	}
	want := map[string]string{
		"deployment.yaml": "watch", "sidecar.yaml": "watch", "cronjob.yaml": "sync", "bucket.yaml": "sync", "postgres.yaml": "watch",
	}
	if !maps.Equal(commands, want) {
		t.Errorf("the manifests run %v, want %v", commands, want)
	}
}

// configFiles returns the files of the ConfigMap among the objects, by their path in a container.
func configFiles(objects []map[string]any) map[string][]byte {
	files := map[string][]byte{}
	for _, object := range objects {
		if at(object, "kind") != "ConfigMap" {
			continue
		}
		for name, text := range at(object, "data").(map[string]any) {
			files["/etc/kbsync/"+name] = []byte(text.(string))
		}
	}
	return files
}

// TestComposeServicesMatchTheirConfig compares each service of the Compose file with the config that it mounts.
// internal/deploytest checks the file against its schema.
func TestComposeServicesMatchTheirConfig(t *testing.T) {
	t.Parallel()
	skipPaths(t)
	services := at(documents(t, filepath.Join(examples, "compose.yaml"))[0], "services").(map[string]any)
	if len(services) != 2 {
		t.Errorf("%d services", len(services))
	}
	for name, s := range services {
		grace, err := time.ParseDuration(fmt.Sprint(at(s, "stop_grace_period")))
		if err != nil || at(s, "image") != image || at(s, "environment") != nil || at(s, "entrypoint") != nil {
			t.Errorf("%s: %v, or another image, or an environment or entrypoint, which this test does not check", name, err)
		}
		c := container{name: name, argv: texts(at(s, "command")), files: map[string][]byte{}, grace: grace}
		for _, volume := range texts(at(s, "volumes")) {
			parts := strings.Split(volume, ":")
			c.mounts = append(c.mounts, mount{parts[1], len(parts) == 3 && parts[2] == "ro"})
			if path.Ext(parts[0]) == ".yaml" {
				c.files[parts[1]] = []byte(readText(t, filepath.Join(examples, parts[0])))
			}
		}
		for _, secret := range texts(at(s, "secrets")) {
			c.mounts = append(c.mounts, mount{"/run/secrets/" + secret, true})
		}
		for _, port := range texts(at(s, "ports")) {
			c.ports = append(c.ports, port[strings.LastIndexByte(port, ':')+1:])
		}
		c.check(t)
	}
}

// skipPaths skips a test that compares paths of the systems that the examples run on.
func skipPaths(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the examples do not run on Windows")
	}
}
