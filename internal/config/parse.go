package config

import "errors"

// Parse makes a Config of a file, the environment and flags. It reads nothing
// else. All mistakes come back together, as [Errors].
func Parse(in Input) (*Config, error) {
	return nil, errors.New("not yet")
}
