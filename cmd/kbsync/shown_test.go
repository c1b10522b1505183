package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
)

const (
	repository = "../.."
	examples   = "../../examples"
	image      = "kbsync:local" // the placeholder of the manifests and of the Compose file
)

// parseOnly has the program's own commands read a command line, without running any: it returns the command, its arguments,
// and the app with the global flags. In a sentence arguments may be left out: `kbsync sources ack`.
func parseOnly(argv []string, sentence bool) (a *app, cmd *cobra.Command, args []string, err error) {
	a = &app{stdin: strings.NewReader(""), out: newOutput(io.Discard, io.Discard, nil), now: time.Now}
	root := a.rootCommand()
	root.PersistentPreRunE = nil
	var replace func(*cobra.Command)
	replace = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			replace(sub)
		}
		if !c.HasParent() {
			return // the root's own complains of unknown commands
		}
		if sentence {
			c.Args = cobra.ArbitraryArgs
		}
		c.Run, c.RunE = nil, func(c *cobra.Command, given []string) error {
			cmd, args = c, given
			return nil
		}
	}
	replace(root)
	root.SetArgs(argv)
	err = root.Execute()
	return a, cmd, args, err
}

// parseWith reads a command line and the config that it names, as the program would.
func parseWith(argv []string, files map[string][]byte) (*config.Config, error) {
	a, cmd, args, err := parseOnly(argv, false)
	if err != nil {
		return nil, err
	}
	if cmd == nil {
		return nil, errors.New("is no command")
	}
	data, ok := files[a.configPath]
	if !ok {
		return nil, fmt.Errorf("--config %q is no file of the examples", a.configPath)
	}
	if cmd.Name() == "export" {
		args = nil // a file, no sync
	}
	return config.Parse(config.Input{
		Path: a.configPath, File: data, Dir: "/",
		Flags: settingsOf(cmd), OtherFlags: otherFlags(cmd.Root()), Args: args,
	})
}

// A line is a command line of kbsync that the repository shows to people.
type line struct {
	where    string
	argv     []string // without the program's name
	sentence bool     // it stands in one
}

var (
	codeSpan   = regexp.MustCompile("`([^`]+)`")
	assignment = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)
	cronTimes  = regexp.MustCompile(`^\s*([-*/,0-9]+\s+){5}`)
	// What stands for something that a person writes there.
	standIn = regexp.MustCompile(`^[A-Z]+(\.\.\.)?$`)
)

// words splits a shell's line into its commands and these into words. It knows what the examples use: quotes, comments,
// redirections, and what stands between commands.
func words(text string) (commands [][]string) {
	var command []string
	var word strings.Builder
	inWord, target := false, false
	var quote rune
	endWord := func() {
		if inWord && !target {
			command = append(command, word.String())
		}
		if inWord {
			target = false
		}
		word.Reset()
		inWord = false
	}
	endCommand := func() {
		endWord()
		if command != nil {
			commands = append(commands, command)
		}
		command, target = nil, false
	}
	for _, r := range text {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == '#' && !inWord:
			endCommand()
			return commands
		case r == ' ' || r == '\t':
			endWord()
		case r == ';' || r == '|' || r == '&' || r == '\n':
			endCommand()
		case r == '>' || r == '<':
			endWord()
			target = true
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	endCommand()
	return commands
}

// ofKbsync finds the command lines of kbsync in a shell's line.
func ofKbsync(where, text string, sentence bool) (lines []line) {
	for _, command := range words(cronTimes.ReplaceAllString(text, "")) {
		for len(command) > 0 && (command[0] == "$" || assignment.MatchString(command[0])) {
			command = command[1:]
		}
		if len(command) > 3 && command[0] == "sudo" && command[1] == "-u" {
			command = command[3:]
		}
		if len(command) > 0 && path.Base(command[0]) == "kbsync" {
			lines = append(lines, line{where, command[1:], sentence})
		}
	}
	return lines
}

// inMarkdown finds those in fenced blocks and code spans, and the blocks that are configs.
func inMarkdown(name, text string) (lines []line, configs map[string]string) {
	configs = map[string]string{}
	fence, block, begin := "", "", 0
	n := 0
	for row := range strings.Lines(text) {
		n++
		where := fmt.Sprintf("%s:%d", name, n)
		row = strings.TrimRight(row, "\n")
		switch mark, ok := strings.CutPrefix(row, "```"); {
		case ok && fence == "":
			fence, block, begin = cmp.Or(mark, "text"), "", n
		case ok:
			if fence == "yaml" && strings.Contains("\n"+block, "\nsyncs:") {
				configs[fmt.Sprintf("%s:%d", name, begin)] = block
			}
			fence = ""
		case fence == "yaml":
			block += row + "\n"
		case fence != "":
			lines = append(lines, ofKbsync(where, row, false)...)
		default:
			for _, span := range codeSpan.FindAllStringSubmatch(row, -1) {
				lines = append(lines, ofKbsync(where, span[1], true)...)
			}
		}
	}
	return lines, configs
}

// inComments finds those that comments show, indented, in a file of examples; and in the text of a crontab.
func inComments(name, text string) (lines []line) {
	n := 0
	for row := range strings.Lines(text) {
		n++
		where := fmt.Sprintf("%s:%d", name, n)
		trimmed := strings.TrimSpace(row)
		if code, ok := strings.CutPrefix(trimmed, "#   "); ok {
			lines = append(lines, ofKbsync(where, code, false)...)
		} else if strings.HasPrefix(trimmed, "#") {
			for _, span := range codeSpan.FindAllStringSubmatch(trimmed, -1) {
				lines = append(lines, ofKbsync(where, span[1], true)...)
			}
		} else if path.Base(name) == "crontab" {
			lines = append(lines, ofKbsync(where, row, false)...)
		}
	}
	return lines
}

func readText(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(data), "\r\n", "\n")
}

// TestShown reads every command line that the documentation and the examples show.
func TestShown(t *testing.T) {
	t.Parallel()
	var lines []line
	blocks := 0
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*.md", "examples/*.yaml", "examples/crontab", "examples/Dockerfile", "examples/*/*.yaml", "examples/systemd/*"} {
		files, err := filepath.Glob(filepath.Join(repository, pattern))
		if err != nil || len(files) == 0 {
			t.Errorf("%s: %v, %v", pattern, files, err)
		}
		for _, file := range files {
			text := readText(t, file)
			name := strings.TrimPrefix(filepath.ToSlash(file), repository+"/")
			if path.Ext(name) != ".md" {
				lines = append(lines, inComments(name, text)...)
				continue
			}
			found, configs := inMarkdown(name, text)
			lines = append(lines, found...)
			for where, block := range configs {
				blocks++
				if _, err := config.Parse(config.Input{Path: "kbsync.yaml", File: []byte(block), Dir: "/"}); err != nil {
					t.Errorf("%s: %v", where, err)
				}
			}
		}
	}
	if len(lines) < 30 || blocks == 0 {
		t.Errorf("only %d command lines and %d configs were found", len(lines), blocks)
	}
	for _, l := range lines {
		if len(l.argv) > 0 && standIn.MatchString(l.argv[0]) {
			continue // kbsync COMMAND --help
		}
		if err := shown(l); err != nil {
			t.Errorf("%s: kbsync %s: %v", l.where, strings.Join(l.argv, " "), err)
		}
	}
}

// shown checks a command line, and the values of its settings.
func shown(l line) error {
	_, cmd, _, err := parseOnly(l.argv, l.sentence)
	if err != nil {
		return err
	}
	if cmd == nil {
		return nil // --help, or without an argument
	}
	flags := settingsOf(cmd)
	for name, values := range flags {
		if slices.ContainsFunc(values, standIn.MatchString) {
			delete(flags, name)
		}
	}
	_, err = config.Parse(config.Input{
		Path: "kbsync.yaml", File: []byte("syncs: [{name: a, root: docs, knowledge_base: 1}]"), Dir: "/",
		Flags: flags, OtherFlags: otherFlags(cmd.Root()),
	})
	return err
}

func TestShownMistakes(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"kbsync snyc", "kbsync sync --touchfile /x", "kbsync sync a b", "kbsync state exprot", "*/5 * * * * kbsync -Q sync",
		"FOO=1 bin/kbsync sync --settle soon", "sudo -u me /usr/local/bin/kbsync status --nope", "a && kbsync emulator --listn :1 &",
	} {
		lines := ofKbsync("here", text, false)
		if len(lines) != 1 {
			t.Errorf("%s: %d command lines found", text, len(lines))
			continue
		}
		if err := shown(lines[0]); err == nil {
			t.Errorf("%s: taken", text)
		}
	}
	got := words(`a 'b c' "d" >e 2 f <g;h|i & j # k`)
	want := [][]string{{"a", "b c", "d", "2", "f"}, {"h"}, {"i"}, {"j"}}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("words are %q", got)
	}
}

// A unit is what a file of systemd says, by section and key.
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
		return fmt.Sprintf("%s is there %d times", key, len(u[key]))
	}
	return u[key][0]
}

// hostFiles are the files of the examples, by the place that they say to put them.
func hostFiles(t *testing.T) map[string][]byte {
	return map[string][]byte{"/etc/kbsync/kbsync.yaml": []byte(readText(t, filepath.Join(examples, "systemd", "kbsync.yaml")))}
}

// TestUnits holds the services against the config that they name.
func TestUnits(t *testing.T) {
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
			t.Errorf("%s: the token is read from %s, and is in %s", test.file, cfg.API.TokenFile, want)
		}
		if dir := path.Dir(cfg.State); dir != "/var/lib/"+u.value("Service.StateDirectory") {
			t.Errorf("%s: the state is in %s, which cannot be written", test.file, dir)
		}
		for _, s := range cfg.Syncs {
			if s.Root.Dir != strings.TrimPrefix(u.value("Service.ReadOnlyPaths"), "-") {
				t.Errorf("%s: %s is none of the ReadOnlyPaths", test.file, s.Root)
			}
		}
		if stop, err := time.ParseDuration(u.value("Service.TimeoutStopSec")); err != nil || stop < cfg.ShutdownGrace+10*time.Second {
			t.Errorf("%s: TimeoutStopSec is %v (%v), and --shutdown-grace %v", test.file, stop, err, cfg.ShutdownGrace)
		}
	}
	if u := readUnit(t, "kbsync.service"); u.value("Service.ExecReload") != "/bin/kill -HUP $MAINPID" || u["Service.WatchdogSec"] == nil || u["Service.Restart"] == nil {
		t.Error("kbsync.service is neither reloaded, watched nor restarted")
	}
	if u := readUnit(t, "kbsync-sync.timer"); u["Timer.OnCalendar"] == nil || u.value("Install.WantedBy") != "timers.target" {
		t.Error("kbsync-sync.timer starts nothing")
	}
}

// TestUnitsVerify has systemd itself read the units.
func TestUnitsVerify(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not there; Debian has it in the package systemd")
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
		// Warnings, such as of an unknown key, come with 0.
		var complaints strings.Builder
		for row := range strings.Lines(string(out)) {
			if strings.Contains(row, dir) || strings.Contains(row, "kbsync") {
				complaints.WriteString(row)
			}
		}
		return complaints.String()
	}
	// The program has to be there.
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
	if said := verify(t, files...); said != "" {
		t.Errorf("systemd-analyze verify says:\n%s", said)
	}
	// Otherwise it says nothing of anything.
	mistake := put("kbsync-mistake.service", "[Service]\nExecStart="+self+"\nProtectSytem=strict\n")
	if said := verify(t, mistake); !strings.Contains(said, "ProtectSytem") {
		t.Errorf("systemd-analyze verify does not see a mistake: %q", said)
	}
}

// TestCrontab reads each of its lines, with the config that they name.
func TestCrontab(t *testing.T) {
	t.Parallel()
	lines := 0
	for row := range strings.Lines(readText(t, filepath.Join(examples, "crontab"))) {
		if row = strings.TrimSpace(row); row == "" || row[0] == '#' {
			continue
		}
		if !cronTimes.MatchString(row) || strings.Contains(row, "%") { // which cron takes for the end of the line
			t.Errorf("%q is no line of a crontab", row)
		}
		for _, l := range ofKbsync("crontab", row, false) {
			lines++
			if _, err := parseWith(l.argv, hostFiles(t)); err != nil {
				t.Errorf("kbsync %s: %v", strings.Join(l.argv, " "), err)
			}
		}
	}
	if lines < 2 {
		t.Errorf("%d lines run kbsync", lines)
	}
}

// A mount is a place in a container.
type mount struct {
	at       string
	readOnly bool
}

// A container is what an example makes of the image.
type container struct {
	name   string
	argv   []string
	files  map[string][]byte
	mounts []mount
	ports  []string
	probes []string      // paths
	grace  time.Duration // between the signal and the kill
}

// check holds a container against the config that it is started with.
func (c container) check(t *testing.T) *config.Config {
	t.Helper()
	cfg, err := parseWith(c.argv, c.files)
	if err != nil {
		t.Errorf("%s: kbsync %s: %v", c.name, strings.Join(c.argv, " "), err)
		return nil
	}
	below := func(place string) (m mount, ok bool) { // the longest
		for _, candidate := range c.mounts {
			if (place == candidate.at || strings.HasPrefix(place, candidate.at+"/")) && len(candidate.at) > len(m.at) {
				m, ok = candidate, true
			}
		}
		return m, ok
	}
	if m, ok := below(cfg.State); !ok || m.readOnly {
		t.Errorf("%s: the state %s is on no volume that can be written", c.name, cfg.State)
	}
	if !slices.Contains(c.argv, "--emulator") {
		if _, ok := below(cfg.API.TokenFile); !ok {
			t.Errorf("%s: the token's file %q is on no volume", c.name, cfg.API.TokenFile)
		}
	}
	for _, s := range cfg.Syncs {
		if m, ok := below(s.Root.Dir); !ok || !m.readOnly {
			t.Errorf("%s: the root %s is on no volume, or may be written", c.name, s.Root)
		}
	}
	if c.grace < cfg.ShutdownGrace+10*time.Second {
		t.Errorf("%s: it is killed after %v, and --shutdown-grace is %v", c.name, c.grace, cfg.ShutdownGrace)
	}
	if c.argv[0] != "watch" {
		if len(c.ports)+len(c.probes) > 0 {
			t.Errorf("%s: %s serves nothing", c.name, c.argv[0])
		}
		return cfg
	}
	host, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil || host != "0.0.0.0" || !slices.Equal(c.ports, []string{port}) {
		t.Errorf("%s: it listens on %s, and the ports are %v", c.name, cfg.Listen, c.ports)
	}
	for _, probe := range c.probes {
		if probe != "/healthz" && probe != "/readyz" {
			t.Errorf("%s: a probe asks for %s", c.name, probe)
		}
	}
	return cfg
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

// at goes down into decoded YAML; nil is what is not there.
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

// TestKubernetes holds each pod against the config that is mounted into it. That the manifests are well-formed is tested in
// internal/deploytest.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	skipPaths(t)
	configMap := documents(t, filepath.Join(examples, "kubernetes", "configmap.yaml"))[0]
	files := map[string][]byte{}
	for name, text := range at(configMap, "data").(map[string]any) {
		files["/etc/kbsync/"+name] = []byte(text.(string))
	}
	commands := map[string]string{}
	for _, name := range []string{"deployment.yaml", "sidecar.yaml", "cronjob.yaml"} {
		for _, object := range documents(t, filepath.Join(examples, "kubernetes", name)) {
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
				if at(c, "command") != nil || at(c, "env") != nil {
					t.Errorf("%s: a command or variables that no test looks at", name)
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
				commands[name] = kbsync.argv[0]
			}
		}
	}
	if commands["deployment.yaml"] != "watch" || commands["sidecar.yaml"] != "watch" || commands["cronjob.yaml"] != "sync" {
		t.Errorf("the manifests run %v", commands)
	}
}

// TestCompose does the same with the services of the Compose file, whose schema is tested in internal/deploytest as well.
func TestCompose(t *testing.T) {
	t.Parallel()
	skipPaths(t)
	services := at(documents(t, filepath.Join(examples, "compose.yaml"))[0], "services").(map[string]any)
	if len(services) != 2 {
		t.Errorf("%d services", len(services))
	}
	for name, s := range services {
		grace, err := time.ParseDuration(fmt.Sprint(at(s, "stop_grace_period")))
		if err != nil || at(s, "image") != image || at(s, "environment") != nil || at(s, "entrypoint") != nil {
			t.Errorf("%s: %v, or something that no test looks at", name, err)
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

// skipPaths leaves out what compares paths of the places where the examples run: none of them is Windows.
func skipPaths(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the examples are for other systems")
	}
}
