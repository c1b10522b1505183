package deploytest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const (
	manifests = "../../examples/kubernetes"
	overlay   = "../../examples/kustomize"
)

// prerequisites are the objects that a user creates before applying the examples.
var prerequisites = map[string]bool{
	"Secret kbsync-token": true, "Secret kbsync-postgres": true, "PersistentVolumeClaim documents": true,
}

// A manifest is an object in a file.
type manifest struct {
	file   string
	object runtime.Object
}

// decode parses the objects of a file as strictly as the API server: it refuses unknown and duplicate fields and wrong types.
func decode(data []byte) ([]runtime.Object, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, batchv1.AddToScheme, corev1.AddToScheme, policyv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	var objects []runtime.Object
	for {
		text, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		object, _, err := decoder.Decode(text, nil, nil)
		if err != nil {
			return nil, err
		}
		objects = append(objects, object)
	}
}

func read(t *testing.T) []manifest {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(manifests, "*.yaml"))
	if err != nil || len(files) < 4 {
		t.Fatalf("manifests: %v, %v", files, err)
	}
	var all []manifest
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		objects, err := decode(data)
		if err != nil {
			t.Errorf("%s: %v", filepath.Base(file), err)
		}
		for _, object := range objects {
			all = append(all, manifest{filepath.Base(file), object})
		}
	}
	for _, object := range kustomized(t) {
		all = append(all, manifest{"kustomize", object})
	}
	return all
}

// kustomized returns the objects of the overlay, as kubectl apply -k builds them.
func kustomized(t *testing.T) []runtime.Object {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), overlay)
	if err != nil {
		t.Fatal(err)
	}
	data, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	objects, err := decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// TestOverlayReplacesConfigAndImage checks that the overlay reaches the objects of the base.
func TestOverlayReplacesConfigAndImage(t *testing.T) {
	t.Parallel()
	config, err := os.ReadFile(filepath.Join(overlay, "kbsync.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var name, mounted, image string
	for _, object := range kustomized(t) {
		if namespace := object.(metav1.Object).GetNamespace(); namespace != "knowledge" {
			t.Errorf("%T is in the namespace %q", object, namespace)
		}
		switch o := object.(type) {
		case *corev1.ConfigMap:
			if name = o.Name; o.Data["kbsync.yaml"] != string(config) {
				t.Errorf("the ConfigMap has another config:\n%s", o.Data["kbsync.yaml"])
			}
		case *corev1.PersistentVolumeClaim:
			if o.Spec.StorageClassName == nil || *o.Spec.StorageClassName != "fast-block" {
				t.Error("the patch of the claim has no effect")
			}
		case *appsv1.Deployment:
			image = o.Spec.Template.Spec.Containers[0].Image
			for _, v := range o.Spec.Template.Spec.Volumes {
				if v.ConfigMap != nil {
					mounted = v.ConfigMap.Name
				}
			}
		}
	}
	if name == "" || name != mounted || image != "registry.example/kbsync:1.0.0" {
		t.Errorf("the ConfigMap is %q, the pod mounts %q and runs %q", name, mounted, image)
	}
}

// TestDecodeFindsMistakes tests decode with typical mistakes.
func TestDecodeFindsMistakes(t *testing.T) {
	t.Parallel()
	const valid = "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: a}\nspec:\n  schedule: '* * * * *'\n"
	if objects, err := decode([]byte(valid + "---\n" + valid)); err != nil || len(objects) != 2 {
		t.Errorf("two valid objects: %d, %v", len(objects), err)
	}
	for name, text := range map[string]string{
		"unknown field":           valid + "  concurencyPolicy: Forbid\n",
		"field twice":             valid + "  schedule: '1 * * * *'\n",
		"wrong type":              valid + "  suspend: never\n",
		"unknown kind":            "apiVersion: batch/v1\nkind: CornJob\n",
		"version of another kind": "apiVersion: apps/v1\nkind: CronJob\n",
	} {
		if _, err := decode([]byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestManifestsReferToExistingObjectsAndRestrictPods checks two things that decode does not: every referenced name exists, and
// the pods are as restricted as the examples promise.
func TestManifestsReferToExistingObjectsAndRestrictPods(t *testing.T) {
	t.Parallel()
	all := read(t)
	existing := map[string]map[string]bool{} // by file, because a user applies one file and configmap.yaml
	kinds := map[string]int{}
	for _, m := range all {
		kind := m.object.GetObjectKind().GroupVersionKind().Kind
		kinds[kind]++
		meta := m.object.(interface{ GetName() string })
		if problems := validation.IsDNS1123Subdomain(meta.GetName()); problems != nil {
			t.Errorf("%s: %s %q: %v", m.file, kind, meta.GetName(), problems)
		}
		if existing[m.file] == nil {
			existing[m.file] = map[string]bool{}
		}
		if name := kind + " " + meta.GetName(); existing[m.file][name] {
			t.Errorf("%s: duplicate %s", m.file, name)
		} else {
			existing[m.file][name] = true
		}
	}
	for _, kind := range []string{"ConfigMap", "CronJob", "Deployment", "PersistentVolumeClaim"} {
		if kinds[kind] == 0 {
			t.Errorf("no %s", kind)
		}
	}
	inDatabase := map[string]bool{} // the files whose config has the state in a database
	pods := map[string]labels.Set{}
	for _, m := range all {
		switch o := m.object.(type) {
		case *corev1.ConfigMap:
			inDatabase[m.file] = strings.Contains(o.Data["kbsync.yaml"], "\nstate: postgres://")
		case *appsv1.Deployment:
			pods[m.file] = o.Spec.Template.Labels
		}
	}
	for _, m := range all {
		report := func(format string, args ...any) { t.Errorf("%s: %s", m.file, fmt.Sprintf(format, args...)) }
		requireObject := func(name string) {
			if !existing[m.file][name] && !existing["configmap.yaml"][name] && !prerequisites[name] {
				report("%s does not exist", name)
			}
		}
		switch o := m.object.(type) {
		case *corev1.ServiceAccount:
			if len(o.Annotations) == 0 {
				report("the service account has no cloud identity")
			}
		case *corev1.ConfigMap:
			if len(o.Data) == 0 {
				report("an empty ConfigMap")
			}
		case *corev1.PersistentVolumeClaim:
			if len(o.Spec.AccessModes) == 0 || o.Spec.Resources.Requests.Storage().IsZero() {
				report("claim %s has no access mode or no size", o.Name)
			}
		case *appsv1.Deployment:
			checkReplicas(o, inDatabase[m.file], report)
			for key, value := range o.Spec.Selector.MatchLabels {
				if o.Spec.Template.Labels[key] != value {
					report("the selector does not select the pod: %s", key)
				}
			}
			if policy := o.Spec.Template.Spec.RestartPolicy; policy != "" && policy != corev1.RestartPolicyAlways {
				report("the restartPolicy of a Deployment must be Always, not %s", policy)
			}
			checkPod(o.Spec.Template.Spec, report, requireObject)
		case *batchv1.CronJob:
			if o.Spec.ConcurrencyPolicy != batchv1.ForbidConcurrent {
				report("concurrencyPolicy is %q", o.Spec.ConcurrencyPolicy)
			}
			if policy := o.Spec.JobTemplate.Spec.Template.Spec.RestartPolicy; policy != corev1.RestartPolicyNever {
				report("restartPolicy is %q", policy)
			}
			checkPod(o.Spec.JobTemplate.Spec.Template.Spec, report, requireObject)
		case *policyv1.PodDisruptionBudget:
			// A budget that never allows an eviction blocks the drain of a node.
			if o.Spec.MaxUnavailable == nil || o.Spec.MaxUnavailable.IntValue() < 1 || o.Spec.MinAvailable != nil {
				report("the budget allows no disruption")
			}
			if selector, err := metav1.LabelSelectorAsSelector(o.Spec.Selector); err != nil || selector.Empty() || !selector.Matches(pods[m.file]) {
				report("the budget does not select the pods: %v", err)
			}
		default:
			report("a %T, which this test does not check", o)
		}
	}
}

// checkReplicas checks that only the pods of a state in a database run side by side.
func checkReplicas(o *appsv1.Deployment, inDatabase bool, report func(string, ...any)) {
	strategy := o.Spec.Strategy
	if o.Spec.Replicas == nil {
		report("the number of replicas is not given")
		return
	}
	if inDatabase {
		if *o.Spec.Replicas < 2 || strategy.Type != appsv1.RollingUpdateDeploymentStrategyType {
			report("%d replicas and %s do not show that processes share a database", *o.Spec.Replicas, strategy.Type)
		}
		for _, v := range o.Spec.Template.Spec.Volumes {
			if v.PersistentVolumeClaim != nil {
				report("the replicas share the volume %s", v.Name)
			}
		}
		return
	}
	if *o.Spec.Replicas != 1 || strategy.Type != appsv1.RecreateDeploymentStrategyType || strategy.RollingUpdate != nil {
		report("two pods could use the same state")
	}
}

func checkPod(pod corev1.PodSpec, report func(string, ...any), requireObject func(string)) {
	switch s := pod.SecurityContext; {
	case s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser == nil || *s.RunAsUser == 0:
		report("the pod may run as root")
	case s.FSGroup == nil:
		report("without an fsGroup the user of the pod cannot write the state or read the token")
	case s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault:
		report("no seccomp profile")
	}
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		report("the pod gets a token of the cluster's API")
	}
	if pod.EnableServiceLinks == nil || *pod.EnableServiceLinks {
		report("a Service named kbsync would set variables that kbsync refuses")
	}
	volumes := map[string]bool{}
	for _, v := range pod.Volumes {
		if volumes[v.Name] {
			report("duplicate volume %s", v.Name)
		}
		volumes[v.Name] = false // not mounted yet
		switch {
		case v.ConfigMap != nil:
			requireObject("ConfigMap " + v.ConfigMap.Name)
		case v.Secret != nil:
			requireObject("Secret " + v.Secret.SecretName)
			if v.Secret.DefaultMode == nil || *v.Secret.DefaultMode != 0o440 {
				report("every user can read the token file")
			}
		case v.PersistentVolumeClaim != nil:
			requireObject("PersistentVolumeClaim " + v.PersistentVolumeClaim.ClaimName)
		case v.EmptyDir != nil && v.Name == "tmp":
		default:
			report("the content of volume %s does not outlive the pod", v.Name)
		}
	}
	for i, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		if i < len(pod.InitContainers) {
			if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
				report("init container %s is not a sidecar: its restartPolicy is not Always", c.Name)
			}
			if c.ReadinessProbe != nil {
				report("the readinessProbe of sidecar %s makes the app unavailable when a sync is halted", c.Name)
			}
		} else if c.RestartPolicy != nil {
			report("container %s: a restartPolicy is for init containers", c.Name)
		}
		if s := c.SecurityContext; s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
			s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
			s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
			report("container %s has more permissions than it needs", c.Name)
		}
		for _, e := range c.Env {
			if e.ValueFrom == nil || e.ValueFrom.SecretKeyRef == nil {
				report("the variable %s is not from a Secret; settings belong into the config", e.Name)
				continue
			}
			requireObject("Secret " + e.ValueFrom.SecretKeyRef.Name)
		}
		if c.Resources.Requests.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() || c.Resources.Limits.Memory().IsZero() {
			report("container %s has no requests or no limit", c.Name)
		}
		ports := map[string]bool{}
		for _, p := range c.Ports {
			if problems := validation.IsValidPortName(p.Name); problems != nil {
				report("port %q: %v", p.Name, problems)
			}
			ports[p.Name] = true
		}
		for _, probe := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
			if probe != nil && (probe.HTTPGet == nil || probe.HTTPGet.Port.Type != intstr.String || !ports[probe.HTTPGet.Port.StrVal]) {
				report("container %s has a probe of an undeclared port", c.Name)
			}
		}
		paths := map[string]bool{}
		for _, mount := range c.VolumeMounts {
			if _, ok := volumes[mount.Name]; !ok {
				report("container %s mounts %s, which does not exist", c.Name, mount.Name)
			}
			if paths[mount.MountPath] {
				report("container %s mounts %s twice", c.Name, mount.MountPath)
			}
			volumes[mount.Name], paths[mount.MountPath] = true, true
		}
	}
	if len(pod.Containers) == 0 {
		report("a pod without containers")
	}
	for name, mounted := range volumes {
		if !mounted {
			report("no container mounts volume %s", name)
		}
	}
}
