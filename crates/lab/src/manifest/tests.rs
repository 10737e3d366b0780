//! What a file may contain, and the errors for its mistakes.

use super::*;

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {ratchet: 'true'}}\n";

fn error(text: &str) -> String {
    Manifest::parse("f.yaml", text).unwrap_err().to_string()
}

#[test]
fn several_documents_lists_and_json_end_in_the_same() {
    let yaml = format!(
        "---\n{POD}---\n\n---\napiVersion: v1\nkind: Node\nmetadata: {{name: n1, labels: {{side: \
         left}}}}\n"
    );
    let json = r#"{"apiVersion":"v1","kind":"List","items":[
        {"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"ratchet":"true"}}},
        {"apiVersion":"v1","kind":"Node","metadata":{"name":"n1","labels":{"side":"left"}}}]}"#;
    for text in [yaml.as_str(), json, &json.replace("\n", "\t\n\t")] {
        let manifest = Manifest::parse("f", text).unwrap();
        assert_eq!(manifest.pods[0].name, "a");
        assert_eq!(manifest.pods[0].namespace, "default");
        assert_eq!(manifest.pods[0].labels["ratchet"], "true");
        assert_eq!(manifest.nodes[0].labels["side"], "left");
    }
}

#[test]
fn other_kinds_are_skipped_with_a_note() {
    let text = format!("{POD}---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\n");
    let notes = Manifest::parse("f", &text).unwrap().notes;
    assert!(
        notes[0].starts_with("document 2 (Service/web): skipped, a lab has no Service"),
        "{notes:?}"
    );
}

#[test]
fn every_mistake_is_reported_at_once_with_document_and_field() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {ratchet: true}}\n---\n\
                apiVersion: v1\nkind: Pod\nmetadata: {name: B}\n";
    let text = error(text);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[0],
        "f.yaml: document 1 (Pod/a): metadata.labels.ratchet: expected a string, found the boolean \
         true: put it in quotes: \"true\""
    );
    assert!(
        lines[1].starts_with("f.yaml: document 2 (Pod/B): metadata.name: expected a name"),
        "{text}"
    );
}

#[test]
fn an_error_inside_a_list_names_the_item() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: \
                {name: a, labels: [x]}\n";
    assert!(
        error(text)
            .starts_with("f.yaml: document 1, item 1 (Pod/a): metadata.labels: expected a mapping")
    );
}

#[test]
fn label_values_a_cluster_would_refuse_are_refused() {
    for value in ["192.168.2.100/24", "fd00::1", "-x", &"x".repeat(64)] {
        let text = POD.replace("'true'", &format!("'{value}'"));
        assert!(
            error(&text).contains("write anything else as an annotation"),
            "{value}"
        );
    }
}

#[test]
fn syntax_errors_have_a_line_and_an_empty_file_is_told_what_to_add() {
    assert!(error("a: [").contains("line"), "{}", error("a: ["));
    assert!(error("# nothing\n").contains("expected at least one Pod"));
    assert!(error("just text").contains("expected a mapping"));
    assert!(error("a: 1").contains("document 1: kind: expected a string"));
    assert!(error(&POD.replace("v1", "v2")).contains("apiVersion: expected v1, found \"v2\""));
}

#[test]
fn two_objects_of_one_name_are_an_error() {
    assert!(
        error(&format!("{POD}---\n{POD}"))
            .contains("document 2 (Pod/a): metadata.name: there are two pods default/a")
    );
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n}\n";
    assert!(error(&format!("{POD}---\n{node}---\n{node}")).contains("there are two Nodes n"));
}

fn with_volume(volume: &str, mount: &str) -> String {
    format!(
        "{POD}spec:\n  containers: [{{name: c, volumeMounts: [{mount}]}}]\n  volumes: \
        [{volume}]\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: conf}}\ndata: {{one: '1', two: '2'}}\n"
    )
}

#[test]
fn a_config_map_after_its_pod_is_found_and_items_rename_its_keys() {
    let all = with_volume(
        "{name: v, configMap: {name: conf}}",
        "{name: v, mountPath: /etc}",
    );
    let mount = &Manifest::parse("f", &all).unwrap().pods[0].mounts[0];
    assert_eq!(mount.files.len(), 2);
    let some = "{name: v, configMap: {name: conf, items: [{key: one, path: x/uno}]}}";
    let mount = &Manifest::parse("f", &with_volume(some, "{name: v, mountPath: /etc}"))
        .unwrap()
        .pods[0]
        .mounts[0];
    assert_eq!(
        mount.files,
        BTreeMap::from([("x/uno".to_owned(), "1".to_owned())])
    );
}

#[test]
fn mistakes_in_volumes_name_what_there_is() {
    let cases = [
        (
            "{name: v, configMap: {name: no}}",
            "{name: v, mountPath: /etc}",
            "spec.volumes[0].configMap.name: expected a ConfigMap of namespace default, found no \
             \"no\" in this file: add it, or name one of the file's ConfigMaps: conf",
        ),
        (
            "{name: v, configMap: {name: conf}}",
            "{name: w, mountPath: /etc}",
            "spec.containers[0].volumeMounts[0]: expected a volume of the pod, found \"w\": add it \
             to spec.volumes, or name one of the pod's volumes: v",
        ),
        (
            "{name: v, configMap: {name: conf, items: [{key: x, path: y}]}}",
            "{name: v, mountPath: /etc}",
            "spec.volumes[0].configMap.items[0]: expected a key of ConfigMap conf, found \"x\": it \
             has: one, two",
        ),
        (
            "{name: v, configMap: {name: conf, items: [{key: one, path: ../y}]}}",
            "{name: v, mountPath: /etc}",
            "leaves the volume",
        ),
        (
            "{name: v, configMap: {name: conf}}",
            "{name: v, mountPath: etc}",
            "expected an absolute path",
        ),
        (
            "{name: v, configMap: {name: conf}}",
            "{name: v}",
            "spec.containers[0].volumeMounts[0].mountPath: expected a string, found nothing",
        ),
        (
            "{name: v, configMap: {name: conf}}",
            "{name: v, mountPath: /etc/x, subPath: three}",
            "it has: one, two",
        ),
    ];
    for (volume, mount, expected) in cases {
        let message = error(&with_volume(volume, mount));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn volumes_of_other_kinds_are_noted_and_left_out() {
    let text = with_volume("{name: v, emptyDir: {}}", "{name: v, mountPath: /cache}");
    let manifest = Manifest::parse("f", &text).unwrap();
    assert!(manifest.pods[0].mounts.is_empty());
    assert!(
        manifest.notes[0].contains("spec.volumes[0]: a lab has ConfigMap volumes only"),
        "{:?}",
        manifest.notes
    );
}
