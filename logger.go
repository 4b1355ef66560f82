package clientv3

import (
	"log"
	"os"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zapgrpc"
	"google.golang.org/grpc/grpclog"
)

// SetLogger sets the logger of gRPC, process-wide. It must be called before any connection is made.
func SetLogger(l grpclog.LoggerV2) {
	grpclog.SetLoggerV2(l)
}

// debugEnv is the environment variable that etcd's clients take their default log level from.
const debugEnv = "ETCD_CLIENT_DEBUG"

// ClientLogLevel returns the level at which a client without Config.Logger and Config.LogConfig logs. It is the one
// that the environment variable ETCD_CLIENT_DEBUG names, as zap writes it ("debug", "info", "warn", "error", …) in any
// case; info if it is not set or "true"; and info, with a complaint on the standard logger, if it is anything else.
func ClientLogLevel() zapcore.Level {
	value := strings.ToLower(os.Getenv(debugEnv))
	if value == "" || value == "true" {
		return zapcore.InfoLevel
	}
	level, err := zapcore.ParseLevel(value)
	if err != nil {
		log.Printf("Invalid value for environment variable '%s'. Using default level: 'info'", debugEnv)
		return zapcore.InfoLevel
	}
	return level
}

// Setting the environment variable makes gRPC log too, as it always has with etcd's clients. That can only be done
// before gRPC is used.
func init() { //nolint:gochecknoinits // see above
	if os.Getenv(debugEnv) == "" {
		return
	}
	lg, err := newLogger(&Config{})
	if err != nil {
		log.Printf("etcdclient: no logger for gRPC: %v", err)
		return
	}
	grpclog.SetLoggerV2(grpcLogger{zapgrpc.NewLogger(lg)})
}

// grpcLogger is zap as gRPC's logger, without the verbose messages.
type grpcLogger struct{ *zapgrpc.Logger }

func (grpcLogger) V(level int) bool { return level <= 0 }

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
