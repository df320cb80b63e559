//! What StatefulSets of stores would become on a cluster: pods, and in each the real server as a process of this machine, with the
//! template's command, arguments, variables and mounts, at a loopback address of its own. Probes are not run.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::stage::run_folder;
use crate::world::World;

/// The network of the servers' addresses: 127.77.0.0/16.
const NETWORK: &str = "127.77";

/// The folders of this machine that stand for the image.
const IMAGE: [&str; 5] = ["/usr", "/bin", "/sbin", "/lib", "/lib64"];

/// Servers that run; they end when this is dropped.
pub struct Servers<'a> {
    world: &'a World,
    processes: Vec<Child>,
}

impl<'a> Servers<'a> {
    /// None yet.
    pub fn new(world: &'a World) -> Self {
        Self {
            world,
            processes: Vec::new(),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.processes.len()
    }

    /// Makes the pods of a StatefulSet, and starts what is in them.
    pub async fn start(&mut self, set: &str) {
        let made = self.world.until("StatefulSet", set, "made", |_| true).await;
        let revision = json!({"status": {
            "observedGeneration": made["metadata"]["generation"],
            "replicas": made["spec"]["replicas"],
            "currentRevision": format!("{set}-1"),
            "updateRevision": format!("{set}-1"),
        }});
        self.write_status("StatefulSet", set, &revision).await;
        for ordinal in 0..made["spec"]["replicas"].as_u64().unwrap() {
            self.start_pod(&made, ordinal).await;
        }
    }

    async fn start_pod(&mut self, set: &Value, ordinal: u64) {
        let owner = set["metadata"]["name"].as_str().unwrap();
        let name = format!("{owner}-{ordinal}");
        let mut template = set["spec"]["template"].clone();
        let labels = template["metadata"]["labels"].as_object_mut().unwrap();
        labels.insert("controller-revision-hash".into(), json!(format!("{owner}-1")));
        labels.insert("statefulset.kubernetes.io/pod-name".into(), json!(name));
        labels.insert("apps.kubernetes.io/pod-index".into(), json!(ordinal.to_string()));
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": template["metadata"],
            "spec": template["spec"],
        });
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "name": owner,
            "uid": set["metadata"]["uid"],
            "controller": true,
        }]);
        self.world.create(&pod).await;

        let number = self.processes.len();
        let address = format!("{NETWORK}.{}.{}", number / 250, number % 250 + 1);
        let folder = run_folder()
            .join("servers")
            .join(&self.world.namespace)
            .join(&name);
        self.mount(&template["spec"], &folder).await;
        for container in template["spec"]["initContainers"].as_array().unwrap() {
            let ended = command(container, &folder, &name, &address)
                .status()
                .await
                .unwrap();
            assert!(ended.success(), "{} of {name}: {ended}", container["name"]);
        }
        let server = &template["spec"]["containers"][0];
        let mut command = command(server, &folder, &name, &address);
        // Beside the others on this machine, each at its own address; the last setting counts.
        command.args(["--bind", &address]);
        let log = fs::File::create(folder.join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.processes.push(command.spawn().unwrap());

        let status = json!({"status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": server["name"],
                "image": server["image"],
                "imageID": "",
                "ready": true,
                "started": true,
                "restartCount": 0,
                "state": {"running": {}},
            }],
        }});
        self.write_status("Pod", &name, &status).await;
    }

    /// Makes what the pod's volumes hold, each in a folder of its name.
    async fn mount(&self, pod: &Value, folder: &Path) {
        for volume in pod["volumes"].as_array().unwrap() {
            let path = folder.join(volume["name"].as_str().unwrap());
            fs::create_dir_all(&path).unwrap();
            let Some(name) = volume["secret"]["secretName"].as_str() else {
                continue;
            };
            let secret = self.world.until("Secret", name, "made", |_| true).await;
            let secret: Secret = serde_json::from_value(secret).unwrap();
            let data = secret.data.unwrap();
            let items: BTreeMap<&str, &str> = match volume["secret"]["items"].as_array() {
                Some(items) => items
                    .iter()
                    .map(|item| (item["key"].as_str().unwrap(), item["path"].as_str().unwrap()))
                    .collect(),
                None => data.keys().map(|key| (key.as_str(), key.as_str())).collect(),
            };
            for (key, file) in items {
                let mut options = fs::OpenOptions::new();
                let file = options
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(path.join(file));
                std::io::Write::write_all(&mut file.unwrap(), &data[key].0).unwrap();
            }
        }
    }

    async fn write_status(&self, kind: &str, name: &str, status: &Value) {
        let params = PatchParams::default();
        self.world
            .api(kind)
            .patch_status(name, &params, &Patch::Merge(status))
            .await
            .unwrap();
    }
}

/// What runs in a container, in front of its mounts. It ends with this process.
fn command(container: &Value, folder: &Path, pod: &str, address: &str) -> Command {
    let mut sandbox = Command::new("bwrap");
    sandbox.args([
        "--die-with-parent",
        "--tmpfs",
        "/",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
    ]);
    for path in IMAGE {
        sandbox.args(["--ro-bind-try", path, path]);
    }
    for mount in container["volumeMounts"].as_array().unwrap() {
        let from: PathBuf = folder.join(mount["name"].as_str().unwrap());
        let bind = if mount["readOnly"] == true {
            "--ro-bind"
        } else {
            "--bind"
        };
        sandbox
            .arg(bind)
            .arg(from)
            .arg(mount["mountPath"].as_str().unwrap());
    }
    // As the kubelet does with references to variables.
    let expanded = |text: &str| text.replace("$(POD_NAME)", pod).replace("$(POD_IP)", address);
    let words = ["command", "args"].map(|part| container[part].as_array().cloned().unwrap_or_default());
    sandbox.args(words.concat().iter().map(|word| expanded(word.as_str().unwrap())));
    sandbox
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("POD_NAME", pod)
        .env("POD_IP", address);
    sandbox.stdin(Stdio::null()).kill_on_drop(true);
    sandbox
}
