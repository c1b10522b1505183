package deploytest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3" // reads off as a text, as YAML 1.2, kbsync and editors do
)

// accepts validates a config against the schema of the config file, as an editor does.
func accepts(t *testing.T, schema *jsonschema.Schema, config string) error {
	t.Helper()
	var value any
	if err := yaml.Unmarshal([]byte(config), &value); err != nil {
		t.Fatal(err)
	}
	return schema.Validate(value)
}

func configSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile("../../docs/kbsync.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

var (
	yamlBlock = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")
	// A setting that is commented out, and an explanation begins with a space.
	commented = regexp.MustCompile(`(?m)^( *)#([a-z])`)
)

// shownConfigs returns the configs in the documentation and the examples, by their place.
func shownConfigs(t *testing.T) map[string]string {
	t.Helper()
	configs := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*.md", "examples/*.yaml", "examples/systemd/*.yaml"} {
		files, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.ReplaceAll(string(data), "\r\n", "\n")
			blocks := [][]string{{"", text}}
			if filepath.Ext(file) == ".md" {
				blocks = yamlBlock.FindAllStringSubmatch(text, -1)
			}
			for i, block := range blocks {
				if strings.Contains("\n"+block[1], "\nsyncs:") {
					configs[fmt.Sprintf("%s, config %d", file, i+1)] = block[1]
				}
			}
		}
	}
	return configs
}

func TestSchemaAcceptsShownConfigs(t *testing.T) {
	t.Parallel()
	schema, whole := configSchema(t), 0
	configs := shownConfigs(t)
	if len(configs) < 5 {
		t.Errorf("found only %d configs", len(configs))
	}
	for where, config := range configs {
		if err := accepts(t, schema, config); err != nil {
			t.Errorf("%s: %v", where, err)
		}
		// The reference has the output of kbsync init: every setting, most of them commented out.
		if strings.Contains(config, "#token_file:") {
			whole++
			if err := accepts(t, schema, commented.ReplaceAllString(config, "$1$2")); err != nil {
				t.Errorf("%s, with all settings: %v", where, err)
			}
		}
	}
	if whole == 0 {
		t.Error("found no config with all settings")
	}
}

func TestSchemaRefusesMistakes(t *testing.T) {
	t.Parallel()
	schema := configSchema(t)
	good := "api: {token_file: /run/secrets/replycx, rate: off}\nstate: kbsync.db\ndefaults: {max_size: 20MiB, settle: 0}\nsyncs:\n" +
		"  - name: handbook\n    root: ./docs\n    knowledge_base: 876\n    include: ['**/*.md']\n    max_delete: 50%\n    batch: {wait: 1m30s}\n" +
		"    hooks: {on_failure: 'https://hooks.example/kbsync', on_success: [notify, handbook]}\n"
	if err := accepts(t, schema, good); err != nil {
		t.Fatal(err)
	}
	for was, is := range map[string]string{
		"token_file: /run":     "tokenfile: /run",          // an unknown key
		"state: kbsync.db":     "knowledge_base: 876",      // a key of a sync at the top
		"name: handbook":       "name: hand/book",          // no name
		"root: ./docs":         "roots: ./docs",            // without a root
		"    root: ./docs\n":   "",                         // without a root
		"knowledge_base: 876":  "knowledge_base: handbook", // no number
		"max_size: 20MiB":      "max_size: 20 megs",        // no size
		"settle: 0":            "settle: 2",                // without a unit
		"wait: 1m30s":          "wait: soon",               // no duration
		"max_delete: 50%":      "max_delete: half",         // no percentage
		"rate: off":            "rate: fast",               // no number
		"include: ['**/*.md']": "on_uncertain: retry",      // none of the choices
		"[notify, handbook]":   "{command: notify}",        // no list
	} {
		bad := strings.Replace(good, was, is, 1)
		if bad == good {
			t.Fatalf("%s is not in the config", was)
		}
		if accepts(t, schema, bad) == nil {
			t.Errorf("the schema accepts %s", is)
		}
	}
}
