package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/version"
)

// binaryEnv names the etcd server of all clusters that do not choose one.
const binaryEnv = "ETCDTEST_BINARY"

// Version returns the version, such as 3.5.35, of the etcd server that clusters are made of unless [WithBinary] names
// another: the one compiled in, or else that at the path in the environment variable ETCDTEST_BINARY.
func Version() (string, error) { return versionOf(os.Getenv(binaryEnv)) }

// versions remembers what the servers by path said.
var versions struct {
	sync.Mutex
	of map[string]string
}

// versionOf asks the server at path which version it is. The empty path is for the one compiled in.
func versionOf(path string) (string, error) {
	if path == "" {
		return version.Version, nil
	}
	versions.Lock()
	defer versions.Unlock()
	if v, ok := versions.of[path]; ok {
		return v, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version") //nolint:gosec // whoever runs the tests says what runs them
	cmd.Env = childEnviron()
	cmd.WaitDelay = time.Second
	if _, err := cmd.StdinPipe(); err != nil { // as the servers have it, and may watch it
		return "", fmt.Errorf("asking %s for its version: %w", path, err)
	}
	out, err := cmd.CombinedOutput()
	found := regexp.MustCompile(`(?m)^etcd Version: (\d+\.\d+\.\d+)`).FindSubmatch(out)
	if err == nil && found == nil {
		err = errors.New("no version in its output")
	}
	if err != nil {
		return "", fmt.Errorf("asking %s for its version: %w\n%s", path, err, out)
	}
	if versions.of == nil {
		versions.of = make(map[string]string)
	}
	versions.of[path] = string(found[1])
	return versions.of[path], nil
}

// A release is a minor version of etcd. What patches add is of no concern here.
type release struct{ major, minor int }

func parseRelease(v string) (r release, err error) {
	if _, err := fmt.Sscanf(v, "%d.%d.", &r.major, &r.minor); err != nil {
		return r, fmt.Errorf("the version %q: %w", v, err)
	}
	return r, nil
}

func (r release) String() string { return fmt.Sprintf("%d.%d", r.major, r.minor) }

func (r release) before(major, minor int) bool {
	return r.major < major || r.major == major && r.minor < minor
}

// demand fails if the option is set, and the server older than the first release that knows it.
func (r release) demand(set bool, option string, major, minor int) error {
	if !set || !r.before(major, minor) {
		return nil
	}
	return fmt.Errorf("%s takes etcd %d.%d or later, and the server is %v", option, major, minor, r)
}
