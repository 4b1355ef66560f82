package clientv3

import (
	"os"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc/grpclog"
)

// SetLogger sets the logger of gRPC, process-wide. It must be called before any connection is made.
func SetLogger(l grpclog.LoggerV2) {
	grpclog.SetLoggerV2(l)
}

// ClientLogLevel returns the level at which a client without Config.Logger and Config.LogConfig logs, from the
// environment variable ETCD_CLIENT_DEBUG: warn if it is not set, debug, info, warn or error if it is one of these, and
// info if it is anything else.
func ClientLogLevel() zapcore.Level {
	value := strings.ToLower(strings.TrimSpace(os.Getenv("ETCD_CLIENT_DEBUG")))
	if value == "" {
		return zapcore.WarnLevel
	}
	var level zapcore.Level
	if err := level.UnmarshalText([]byte(value)); err != nil {
		return zapcore.InfoLevel
	}
	return level
}

// newLogger returns the logger that the configuration asks for: Logger as it is, else one built from LogConfig, else
// one that writes JSON lines to standard error at ClientLogLevel.
func newLogger(cfg *Config) (*zap.Logger, error) {
	if cfg.Logger != nil {
		return cfg.Logger, nil
	}
	if cfg.LogConfig != nil {
		return cfg.LogConfig.Build()
	}
	zcfg := zap.NewProductionConfig()
	zcfg.Level = zap.NewAtomicLevelAt(ClientLogLevel())
	lg, err := zcfg.Build()
	if err != nil {
		return nil, err
	}
	return lg.Named("etcd-client"), nil
}
