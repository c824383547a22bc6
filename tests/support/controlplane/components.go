package main

import (
	"context"
	"net"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	controlleroptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"
	"k8s.io/kubernetes/pkg/controlplane/reconcilers"
)

// The controllers whose work tests wait for. Without nodes, those of workloads would only make pods that never run.
var controllerNames = []string{
	names.ClusterRoleAggregationController,
	names.GarbageCollectorController,
	names.NamespaceController,
	names.ResourceQuotaController,
	names.RootCACertificatePublisherController,
	names.ServiceAccountController,
	names.ServiceAccountTokenController,
	names.ValidatingAdmissionPolicyStatusController,
}

// runAPIServer serves until the context ends or it fails.
func runAPIServer(ctx context.Context, listener net.Listener, etcd string, keys *keys) error {
	options := apiserveroptions.NewServerRunOptions()
	if err := options.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return err
	}
	address := listener.Addr().(*net.TCPAddr)
	options.SecureServing.Listener = listener
	options.SecureServing.BindAddress = address.IP
	options.SecureServing.BindPort = address.Port
	options.SecureServing.ServerCert.CertKey.CertFile = keys.serverFile
	options.SecureServing.ServerCert.CertKey.KeyFile = keys.serverKeyFile
	// Pods would find the API by the Service's endpoints, and loopback may not stand there.
	options.GenericServerRunOptions.AdvertiseAddress = address.IP
	options.EndpointReconcilerType = string(reconcilers.NoneEndpointReconcilerType)
	options.ServiceClusterIPRanges = "10.0.0.0/16"
	options.AllowPrivileged = true
	options.Etcd.StorageConfig.Transport.ServerList = []string{etcd}
	options.Authentication.ClientCert.ClientCA = keys.authorityFile
	options.Authentication.ServiceAccounts.Issuers = []string{"https://kubernetes.default.svc"}
	options.Authentication.ServiceAccounts.KeyFiles = []string{keys.serviceAccountFile}
	options.ServiceAccountSigningKeyFile = keys.serviceAccountFile
	options.Authorization.Modes = []string{"Node", "RBAC"}

	completed, err := options.Complete(ctx)
	if err != nil {
		return err
	}
	if faults := completed.Validate(); len(faults) > 0 {
		return utilerrors.NewAggregate(faults)
	}
	return apiserver.Run(ctx, completed)
}

// runControllers works until the context ends or it fails.
func runControllers(ctx context.Context, kubeconfig string, keys *keys) error {
	options, err := controlleroptions.NewKubeControllerManagerOptions()
	if err != nil {
		return err
	}
	options.Generic.Controllers = controllerNames
	options.Generic.ClientConnection.Kubeconfig = kubeconfig
	// By default 20 requests a second: deleting one test's namespace would hold up the next test's.
	options.Generic.ClientConnection.QPS = 200
	options.Generic.ClientConnection.Burst = 400
	options.Generic.LeaderElection.LeaderElect = false
	options.SAController.ServiceAccountKeyFile = keys.serviceAccountFile
	options.SAController.RootCAFile = keys.authorityFile
	options.SecureServing.BindPort = 0 // it serves nothing

	config, err := options.Config(ctx, controllers.KnownControllers(), controllers.ControllersDisabledByDefault(),
		controllers.ControllerAliases())
	if err != nil {
		return err
	}
	return controllers.Run(ctx, config.Complete())
}
