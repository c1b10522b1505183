package deploytest

import (
	"os"
	"slices"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

const composeFile = "../../examples/compose.yaml"

func load(t *testing.T, data []byte, profiles ...string) (*types.Project, error) {
	t.Helper()
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  "../../examples",
		ConfigFiles: []types.ConfigFile{{Filename: composeFile, Content: data}},
		Environment: types.Mapping{},
	}, func(o *loader.Options) { o.Profiles = profiles })
}

// TestComposeFileIsValidAndRestricted loads the file with the loader of the Compose specification, which checks the schema and
// the references.
func TestComposeFileIsValidAndRestricted(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(composeFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ profiles, services []string }{
		{nil, []string{"kbsync"}},
		{[]string{"emulator"}, []string{"emulator", "kbsync"}},
	} {
		project, err := load(t, data, test.profiles...)
		if err != nil {
			t.Fatal(err)
		}
		if got := project.ServiceNames(); !slices.Equal(got, test.services) {
			t.Errorf("profiles %v: services %v, want %v", test.profiles, got, test.services)
		}
		for name, service := range project.Services {
			if !service.ReadOnly || !slices.Equal(service.CapDrop, []string{"ALL"}) || service.Privileged {
				t.Errorf("%s has more permissions than it needs", name)
			}
			for _, port := range service.Ports {
				if port.HostIP != "127.0.0.1" {
					t.Errorf("%s listens on addresses outside of this machine: %+v", name, port)
				}
			}
			for _, volume := range service.Volumes {
				if volume.Type != types.VolumeTypeBind {
					continue
				}
				if _, err := os.Stat(volume.Source); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if !volume.ReadOnly {
					t.Errorf("%s can write to %s", name, volume.Source)
				}
			}
		}
	}
}

// TestComposeLoaderFindsMistakes tests the other test of this file.
func TestComposeLoaderFindsMistakes(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"unknown key":    "services: {a: {image: b, comand: [c]}}",
		"wrong type":     "services: {a: {image: b, read_only: [1]}}",
		"unknown volume": "services: {a: {image: b, volumes: ['data:/srv']}}",
		"unknown secret": "services: {a: {image: b, secrets: [c]}}",
	} {
		if _, err := load(t, []byte("name: x\n"+text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
